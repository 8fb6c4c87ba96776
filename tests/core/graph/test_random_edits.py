"""Random edits against a plain dictionary of edges and its naive evaluation."""

import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

from torch_dag_core.errors import CycleError, GraphError
from torch_dag_core.graph.builtin_ops import GetItem
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.registration import Scope
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Add, Maximum, Neg, Sub

UNARY = (Neg, nn.Tanh, nn.Identity, lambda: nn.Linear(3, 3))
BINARY = (Add, Sub, Maximum)
FOLDERS = ("", "a.", "b.", "a.c.")
SAMPLE = torch.linspace(-1, 1, 6).reshape(2, 3)


class Edits(RuleBasedStateMachine):
    """`nodes` is the oracle: name -> (module, operand names), with None as the module of an input."""

    @initialize()
    def start(self):
        torch.manual_seed(0)
        self.dag = DagModule()
        self.nodes = {"x": (None, []), "y": (None, [])}
        for name in self.nodes:
            self.dag.add_input(name)
        self.outputs = ["x"]
        self.dag.set_output(self.dag.get_vertex_by_name("x"))
        self.count = 0

    # The oracle ------------------------------------------------------------------------------------------------

    def before(self, name):
        """Return what ``name`` depends on, itself included."""
        return {name}.union(*(self.before(operand) for operand in self.nodes[name][1]))

    def value(self, name, known=None):
        known = {"x": SAMPLE, "y": SAMPLE.flip(0)} if known is None else known
        if name not in known:
            module, operands = self.nodes[name]
            known[name] = module(*[self.value(operand, known) for operand in operands])
        return known[name]

    def redirect(self, old, new, chosen=None):
        for name, (_, operands) in self.nodes.items():
            for index, operand in enumerate(operands):
                if operand == old and (chosen is None or (name, index) in chosen):
                    operands[index] = new
        if chosen is None:
            self.outputs = [new if name == old else name for name in self.outputs]

    def uses_of(self, name):
        return [(user, i) for user, (_, operands) in self.nodes.items() for i, o in enumerate(operands) if o == name]

    def is_tensor(self, name):
        return isinstance(self.value(name), torch.Tensor)

    # Drawing ---------------------------------------------------------------------------------------------------

    def draw(self, data, names):
        return data.draw(st.sampled_from(sorted(names)))

    def tensors(self):
        return [name for name in self.nodes if self.is_tensor(name)]

    def inner(self):
        return [name for name, (module, _) in self.nodes.items() if module is not None]

    def fresh(self, data):
        self.count += 1
        return f"{data.draw(st.sampled_from(FOLDERS))}v{self.count}"

    def get(self, name):
        return self.dag.get_vertex_by_name(name)

    def refuse(self, error, edit, *arguments, **options):
        text, keys = str(self.dag), list(self.dag.state_dict())
        with pytest.raises(error):
            edit(*arguments, **options)
        assert (str(self.dag), list(self.dag.state_dict())) == (text, keys)

    # Edits -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), makes=st.sampled_from(BINARY + UNARY))
    def add(self, data, makes):
        name, operands = self.fresh(data), [self.draw(data, self.tensors()) for _ in range(1 + (makes in BINARY))]
        module = makes()
        self.dag.add_vertex(name, module, [self.get(operand) for operand in operands])
        self.nodes[name] = (module, operands)

    @rule(data=st.data(), makes=st.sampled_from(BINARY + UNARY))
    def add_at_the_end(self, data, makes):
        self.add(data, makes)
        self.outputs = [next(reversed(self.nodes))]
        self.dag.set_output(self.get(self.outputs[0]))

    @rule(data=st.data())
    def choose_outputs(self, data):
        self.outputs = data.draw(st.lists(st.sampled_from(sorted(self.tensors())), min_size=1, max_size=3))
        template = tuple(Slot(index) for index in range(len(self.outputs)))
        self.dag.set_outputs(template, [self.get(name) for name in self.outputs])

    @precondition(lambda self: self.inner())
    @rule(data=st.data(), makes=st.sampled_from(UNARY))
    def insert_before(self, data, makes):
        vertex = self.draw(data, self.inner())
        operands = self.nodes[vertex][1]
        index = data.draw(st.integers(0, 2))
        if index >= len(operands):
            self.refuse(GraphError, self.dag.insert_before, self.get(vertex), makes(), index=index)
        elif self.is_tensor(operands[index]):
            added = self.dag.insert_before(self.get(vertex), makes(), index=index)
            self.nodes[added.name] = (added.module, [operands[index]])
            operands[index] = added.name

    @rule(data=st.data(), makes=st.sampled_from(UNARY))
    def insert_after(self, data, makes):
        vertex = self.draw(data, self.tensors())
        added = self.dag.insert_after(self.get(vertex), makes())
        self.redirect(vertex, added.name)
        self.nodes[added.name] = (added.module, [vertex])

    @precondition(lambda self: self.inner())
    @rule(data=st.data(), makes=st.sampled_from(UNARY))
    def insert_between(self, data, makes):
        source, target = self.draw(data, self.tensors()), self.draw(data, self.inner())
        edges = [(user, index) for user, index in self.uses_of(source) if user == target]
        if not edges:
            self.refuse(GraphError, self.dag.insert_between, self.get(source), self.get(target), makes())
            return
        added = self.dag.insert_between(self.get(source), self.get(target), makes())
        self.redirect(source, added.name, edges)
        self.nodes[added.name] = (added.module, [source])

    @precondition(lambda self: self.inner())
    @rule(data=st.data(), share=st.booleans())
    def replace_module(self, data, share):
        vertex, other = self.draw(data, self.inner()), self.draw(data, self.inner())
        module = self.nodes[other][0] if share else nn.Tanh()
        old, operands = self.nodes[vertex]
        if isinstance(module, (Neg, nn.Tanh, nn.Linear)) and isinstance(old, (Neg, nn.Tanh, nn.Linear, nn.Identity)):
            self.dag.replace_module(self.get(vertex), module)
            self.nodes[vertex] = (module, operands)

    @precondition(lambda self: self.inner())
    @rule(data=st.data())
    def set_predecessor(self, data):
        vertex, source = self.draw(data, self.inner()), self.draw(data, self.tensors())
        operands = self.nodes[vertex][1]
        if isinstance(self.nodes[vertex][0], GetItem) or not operands:
            return
        index = data.draw(st.integers(0, len(operands) - 1))
        if vertex in self.before(source):
            self.refuse(CycleError, self.dag.set_predecessor, self.get(vertex), index, self.get(source))
            return
        self.dag.set_predecessor(self.get(vertex), index, self.get(source))
        operands[index] = source

    @rule(data=st.data())
    def replace_uses(self, data):
        old, new = self.draw(data, self.tensors()), self.draw(data, self.tensors())
        uses = self.uses_of(old)
        chosen = data.draw(st.lists(st.sampled_from(uses), unique=True)) if uses else []
        edges = [(self.get(user), index) for user, index in chosen]
        if {user for user, _ in chosen} & self.before(new):
            self.refuse(CycleError, self.dag.replace_uses, self.get(old), self.get(new), edges)
            return
        self.dag.replace_uses(self.get(old), self.get(new), edges)
        self.redirect(old, new, chosen)

    @rule(data=st.data())
    def remove_vertex(self, data):
        vertex = self.draw(data, self.nodes)
        module, operands = self.nodes[vertex]
        if any(isinstance(self.nodes[user][0], GetItem) for user, _ in self.uses_of(vertex)):
            return
        used = vertex in self.outputs or self.uses_of(vertex)
        if module is None or (used and len(operands) != 1):
            self.refuse(GraphError, self.dag.remove_vertex, self.get(vertex))
            return
        if used and not self.is_tensor(operands[0]):
            return
        self.dag.remove_vertex(self.get(vertex))
        if used:
            self.redirect(vertex, operands[0])
        del self.nodes[vertex]

    @rule()
    def remove_dead_vertices(self):
        needed = {"x", "y"}.union(*(self.before(name) for name in self.outputs))
        assert set(self.dag.remove_dead_vertices()) == set(self.nodes) - needed
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}

    @precondition(lambda self: self.inner())
    @rule(data=st.data())
    def rename(self, data):
        old, new = self.draw(data, self.inner()), self.fresh(data)
        self.dag.rename(self.get(old), new)
        self.redirect(old, new)
        self.nodes = {(new if name == old else name): node for name, node in self.nodes.items()}

    @precondition(lambda self: self.inner())
    @rule(data=st.data())
    def wrap(self, data):
        chosen = set(data.draw(st.lists(st.sampled_from(sorted(self.inner())), min_size=1, max_size=5)))
        name = self.fresh(data)
        vertices = [self.get(vertex) for vertex in sorted(chosen)]
        after = {n for n in self.nodes if n not in chosen and chosen & self.before(n)}
        if any(after & self.before(member) for member in chosen):
            self.refuse(GraphError, self.dag.wrap_subgraph, vertices, name=name)
            return
        order = [vertex.name for vertex in self.dag.inner_vertices if vertex.name in chosen]
        outside = [operand for member in order for operand in self.nodes[member][1] if operand not in chosen]
        users = {n: [u for u, _ in self.uses_of(n) if u not in chosen] for n in order}
        results = [member for member in order if users[member] or member in self.outputs]
        wrapped = self.dag.wrap_subgraph(vertices, name=name)
        picked = [name] if len(results) == 1 else [pick.name for pick in wrapped.successors]
        assert len(picked) == len(results)
        self.nodes[name] = (wrapped.module, list(dict.fromkeys(outside)))
        for index, (result, pick) in enumerate(zip(results, picked, strict=True)):
            if pick != name:
                self.nodes[pick] = (self.get(pick).module, [name])
                assert self.get(pick).module.index == index
            self.redirect(result, pick)
        for member in chosen:
            del self.nodes[member]

    @rule()
    def flatten(self):
        flat = self.dag.flatten()
        flat.verify()
        assert not any(isinstance(vertex.module, DagModule) for vertex in flat.inner_vertices)
        self.check_outputs(flat)
        ours, theirs = list(self.dag.parameters()), list(flat.parameters())
        assert len(ours) == len(theirs)
        assert not {id(parameter) for parameter in ours} & {id(parameter) for parameter in theirs}

    @rule(through_pickle=st.booleans())
    def go_on_with_a_copy(self, through_pickle):
        twin = pickle.loads(pickle.dumps(self.dag)) if through_pickle else self.dag.clone()
        assert str(twin) == str(self.dag)
        assert list(twin.state_dict()) == list(self.dag.state_dict())
        self.dag = twin
        for name in self.inner():
            self.nodes[name] = (self.get(name).module, self.nodes[name][1])

    # What must hold --------------------------------------------------------------------------------------------

    def check_outputs(self, dag):
        result = dag(SAMPLE, SAMPLE.flip(0))
        result = [result] if isinstance(result, torch.Tensor) else result
        assert len(result) == len(self.outputs)
        assert all(torch.equal(got, self.value(name)) for got, name in zip(result, self.outputs, strict=True))

    @invariant()
    def the_graph_agrees_with_the_oracle(self):
        self.dag.verify()
        edges = {vertex.name: [p.name for p in vertex.predecessors] for vertex in self.dag.vertices}
        assert edges == {name: operands for name, (_, operands) in self.nodes.items()}
        assert [vertex.name for vertex in self.dag.outputs] == self.outputs
        assert all(self.get(name).module is self.nodes[name][0] for name in self.inner())
        self.check_outputs(self.dag)

    @invariant()
    def the_order_is_topological(self):
        seen = set()
        for vertex in self.dag.vertices:
            assert seen.issuperset(vertex.predecessors)
            seen.add(vertex)

    @invariant()
    def modules_are_registered_once_under_a_name_of_theirs(self):
        names = {}
        for name in self.inner():
            names.setdefault(self.nodes[name][0], set()).add(name)
        scopes = [name for name, module in self.dag.named_modules() if isinstance(module, Scope)]
        assert all(any(True for _ in self.dag.get_submodule(scope).children()) for scope in scopes)
        registered = {name for name, _ in self.dag.named_modules(remove_duplicate=False)} & set(self.nodes)
        assert all(len(registered & own) == 1 for own in names.values())
        assert all(self.dag.get_submodule(name) is self.nodes[name][0] for name in registered)


Edits.TestCase.settings = settings(max_examples=40, stateful_step_count=30, derandomize=True)
TestEdits = Edits.TestCase
