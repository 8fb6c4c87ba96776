"""Models whose calls in training depend on data, converted for evaluation alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.conversion.report import conversion_report
from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.graph.interpret import interpret
from torch_dag_core.serialization import load


class Trained(nn.Module):
    """A small network with a step that only training takes."""

    def __init__(self, step):
        super().__init__()
        self.first, self.norm, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.last, self.step = nn.Conv2d(8, 4, 1), step

    def forward(self, x):
        x = self.drop(self.norm(self.first(x)).relu())
        return self.last(self.step(x) if self.training else x)


def clamped(x):
    return x if torch.isfinite(x).all() else x.clamp(-1, 1)


def noisy(x):
    return x + 0.1 if torch.rand(()).item() < 0.5 else x


def selected(x):
    return x[x.sum((1, 2, 3)) > 0]


def images(batch):
    return torch.randn(batch, 3, 8, 8)


STEPS = {"a guard against overflow": clamped, "a draw": noisy, "a choice of samples": selected}


@pytest.mark.parametrize("name", STEPS)
def test_the_error_offers_evaluation_alone(name):
    with pytest.raises(
        TraceError, match=rf'{__file__}:\d+.*in evaluation the model can be converted: pass modes="eval"'
    ):
        build_from_unstructured_module(Trained(STEPS[name]), images(2))


def test_no_offer_is_made_to_a_model_that_fails_in_evaluation_too():
    class Always(Trained):
        def forward(self, x):
            return self.last(clamped(self.first(x)))

    with pytest.raises(TraceError, match="takes a Python value") as error:
        build_from_unstructured_module(Always(clamped), images(2))
    assert "modes" not in str(error.value)


@pytest.mark.parametrize("hierarchy", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_the_graph_computes_in_evaluation_and_says_so_in_training(name, hierarchy, tmp_path):
    model = Trained(STEPS[name])
    dag = build_from_unstructured_module(model, images(2), modes="eval", keep_hierarchy=hierarchy)
    assert model.training
    model.eval()
    dag.save(tmp_path / "dag.safetensors")
    for graph in (dag, load(tmp_path / "dag.safetensors"), dag.clone(), dag.flatten()):
        assert graph.input_spec.evaluation_only
        assert not any(module.training for module in graph.modules())
        for batch in (1, 5):
            x = images(batch)
            assert torch.equal(graph(x), model(x))
        graph.train()
        with pytest.raises(InputError, match=r'evaluation alone, because .*modes="eval".*call eval\(\)'):
            graph(images(2))
        with pytest.raises(InputError, match="evaluation alone"):
            next(interpret(graph, images(2)))
        assert torch.equal(graph.eval()(x), model(x))
    assert "computes in evaluation alone" in dag.summary()
    assert "computes in evaluation alone" in conversion_report(dag)


def test_gradients_are_those_of_the_model():
    model = Trained(clamped).eval()
    dag, x = build_from_unstructured_module(model, images(2), modes="eval"), images(3)
    model(x).square().sum().backward()
    dag(x).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in dag.named_parameters()}
    assert all(torch.equal(gradients[name], parameter.grad) for name, parameter in model.named_parameters())


def test_a_graph_around_one_for_evaluation_is_one_itself(outer_of):
    dag = build_from_unstructured_module(Trained(clamped), images(2), modes="eval")
    outer, _ = outer_of(dag)
    flat, x = outer.eval().flatten(), images(2)
    assert torch.equal(flat(x), dag(x))
    with pytest.raises(InputError, match="evaluation alone"):
        flat.train()(x)


def test_a_graph_without_layers_that_know_modes_refuses_training_too():
    dag = build_from_unstructured_module(nn.Conv2d(3, 4, 1), images(2), modes="eval")
    with pytest.raises(InputError, match="evaluation alone"):
        dag.train()(images(2))


def test_both_modes_are_the_default_and_others_are_unknown():
    dag = build_from_unstructured_module(nn.Conv2d(3, 4, 1), images(2))
    assert not dag.input_spec.evaluation_only
    with pytest.raises(ValueError, match="modes is 'train', but has to be one of 'both', 'eval'"):
        build_from_unstructured_module(nn.Conv2d(3, 4, 1), images(2), modes="train")
