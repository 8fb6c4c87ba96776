"""Keys, places, minimums and reports of an analysis."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import AnalysisError, Fixed, analyze


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.proj = nn.Linear(5, 8), nn.Linear(8, 36), nn.Linear(12, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 3)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x + self.proj(mixed))


def dag_of(model, *inputs):
    return build_from_unstructured_module(model, tuple(inputs))


@pytest.fixture
def block():
    return dag_of(Block(), torch.randn(2, 3, 9, 9))


def test_keys_name_the_first_place(block):
    analysis = analyze(block)
    assert [orbit.key for orbit in analysis.orbits] == ["stem.weight:0", "a.weight:0"]
    assert [orbit.name for orbit in analysis.orbits] == ["stem", "a"]


def test_keys_name_the_factor():
    analysis = analyze(dag_of(Attention(), torch.randn(2, 7, 5)))
    assert [orbit.key for orbit in analysis.orbits] == ["embed.weight:0", "qkv.weight:0/1", "qkv.weight:0/2"]


def test_places_list_every_tensor(block):
    stem = analyze(block).orbits[0]
    assert {str(place) for place in stem.places} == {
        "stem.weight:0", "stem.bias:0", "norm.weight:0", "norm.bias:0", "norm.running_mean:0", "norm.running_var:0",
        "a.weight:1", "b.weight:0", "b.bias:0", "head.weight:1",
    }  # fmt: skip


def test_keys_do_not_depend_on_sizes_or_repetition(block):
    first, second = analyze(block), analyze(block, torch.randn(4, 3, 20, 12))
    assert [orbit.key for orbit in first.orbits] == [orbit.key for orbit in second.orbits]


def test_nothing_is_changed_and_tensors_are_shared(block):
    before, version = str(block), block._version
    analysis = analyze(block)
    assert analysis.dag is not block
    assert (str(block), block._version) == (before, version)
    assert {id(p) for p in analysis.dag.parameters()} == {id(p) for p in block.parameters()}


def test_an_edited_graph_has_to_be_analysed_again(block):
    analysis = analyze(block)
    block.rename(block.get_vertex_by_name("head"), "classifier")
    with pytest.raises(AnalysisError, match="edited after it was analysed"):
        _ = analysis.dag


def test_the_report_adds_up(block):
    for dag in (block, dag_of(Attention(), torch.randn(2, 7, 5))):
        analysis = analyze(dag)
        stays = sum(analysis.locked.values()) + analysis.floor
        assert stays / analysis.cost() == pytest.approx(1 - analysis.removable_share)
        assert "output head" in str(analysis)
        assert "floor" in str(analysis)


def test_outputs_are_frozen_by_name_and_can_be_freed(block):
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)

        def forward(self, x):
            return self.b(F.relu(self.a(x)))

    dag = dag_of(Features(), torch.randn(2, 3, 9, 9))
    frozen = analyze(dag)
    assert [str(cause) for cause in frozen.locked] == ["b (output): output b"]
    assert [orbit.n for orbit in analyze(dag, free_outputs=["b"]).orbits] == [8, 12]
    with pytest.raises(AnalysisError, match="returns no vertex 'c'; free_outputs may name b"):
        analyze(dag, free_outputs=["c"])


def test_inputs_of_every_form(block):
    x = torch.randn(2, 3, 9, 9)
    keys = [orbit.key for orbit in analyze(block).orbits]
    for inputs in (x, (x,), {"x": x}, ((x,), {}), ((), {"x": x})):
        assert [orbit.key for orbit in analyze(block, inputs).orbits] == keys
    with pytest.raises(AnalysisError, match="lack x"):
        analyze(block, {})


def test_analysed_inputs_have_at_least_two_samples(block):
    x = torch.randn(1, 3, 9, 9)
    (tensor,) = analyze(block, x).inputs
    assert len(tensor) >= 2
    assert torch.equal(tensor[0], x[0])
    assert torch.equal(tensor[1], x[0])


def test_a_graph_without_sizes_asks_for_inputs():
    from torch_dag_core.graph.dag import DagModule

    dag = DagModule()
    dag.set_output(dag.add_vertex("fc", nn.Linear(4, 3), [dag.add_input("x")]))
    with pytest.raises(AnalysisError, match="pass example_inputs"):
        analyze(dag)
    assert analyze(dag, torch.randn(2, 4)).orbits == ()


def test_sizes_are_remembered_in_files(block, tmp_path):
    from torch_dag_core.graph.dag import DagModule

    block.save(tmp_path / "block.safetensors")
    loaded = DagModule.load(tmp_path / "block.safetensors")
    assert analyze(loaded).cost() == analyze(block).cost()


def test_axes_are_resolved_everywhere(block):
    analysis = analyze(block)
    (stem,) = analysis.axes_of("stem")
    assert stem[1] == analysis.orbits[0].atom
    assert analysis.operand_axes("a", 0)[1] == analysis.orbits[0].atom
    assert analysis.parameter_axes["a.weight"][:2] == [analysis.orbits[1].atom, analysis.orbits[0].atom]
    assert analysis.relations["head"].rewrite == {"in_features": analysis.orbits[0].atom}
    assert {atom.id for atom in analysis.solver.atoms()} == {orbit.atom.id for orbit in analysis.orbits}


def test_statistics_over_what_stays_need_no_masked_form(block):
    assert analyze(block).relations["norm"].masked is None
    relations = analyze(dag_of(Attention(), torch.randn(2, 7, 5))).relations
    assert relations["norm"].masked is not None


def test_tied_tensors_are_one_entry():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.mix, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
            self.out.weight = self.table.weight

        def forward(self, index):
            return self.out(F.gelu(self.mix(self.table(index))))

    dag = dag_of(Tied(), torch.randint(0, 11, (2, 7)))
    analysis = analyze(dag)
    assert [orbit.n for orbit in analysis.orbits] == [8]
    assert "out.weight" not in analysis.parameter_axes
    half = {analysis.orbits[0].atom.id: 4}
    assert analysis.parameters_count() == sum(p.numel() for p in dag.parameters())
    assert analysis.parameters_count(half) == 11 * 4 + 4 * 4 + 4


def test_a_coincidence_of_one_image_size_is_not_pruned():
    """Reading (B, C, N) as (B, N, C) is the identity where N = C, and a scramble elsewhere."""

    class Scramble(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            y = self.a(x)
            b, c, h, w = y.shape
            return self.b(y.reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w))

    dag = dag_of(Scramble(), torch.randn(2, 3, 4, 4))
    assert None in dag.input_spec.tensors[0].shape[2:]
    analysis = analyze(dag)
    assert analysis.orbits == ()


def test_tensors_of_opaque_modules_stay():
    from torch_dag_core.graph.dag import DagModule

    class Opaque(nn.Linear):
        """Not the class that the rule of linear layers describes."""

    dag = DagModule()
    dag.add_vertex("opaque", Opaque(4, 6), [dag.add_input("x")])
    dag.set_output(dag.get_vertex_by_name("opaque"))
    analysis = analyze(dag, torch.randn(3, 2, 4))
    assert analysis.orbits == ()
    assert analysis.relations["opaque"].parameters == {}
    assert all(isinstance(axis, Fixed) for axes in analysis.axes_of("opaque") for axis in axes)
