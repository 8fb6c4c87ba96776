"""Records that stand in modules are gathered from a package, in order, each once."""

from __future__ import annotations

import sys
import textwrap

import pytest
from torch import nn

from torch_dag_core.errors import DuplicateOpError
from torch_dag_core.graph.op import Op
from torch_dag_core.plugins.codecs import ClassCodec, ModuleCodec, OpCodec
from torch_dag_core.plugins.declarations import declare, gather, op
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry

HEAD = """
from torch import nn
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.op import Op
from torch_dag_core.plugins.declarations import declare, op
from torch_dag_core.plugins.registry import AtomicSpec
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes a package ``sample_records`` of these modules."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules):
        for name, source in {"__init__": "", **modules}.items():
            path = tmp_path / "sample_records" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(HEAD + textwrap.dedent(source))
        return "sample_records"

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample_records"]:
        del sys.modules[name]


def keys(records):
    return [record.key for record in records]


def test_records_come_by_module_and_then_by_line(package):
    name = package(
        b="""
        FIRST = declare("sample.first", nn.Sequential, codec=None)

        @op("sample.second")
        class Second(Op):
            pass

        PAIR = (declare("sample.third", nn.ReLU), declare("sample.fourth", nn.Tanh))
        """,
        a="""
        @op("sample.before")
        class Before(Op):
            pass
        """,
    )
    expected = ["sample.before", "sample.first", "sample.second", "sample.third", "sample.fourth"]
    assert keys(gather(name, OpSpec)) == expected
    assert keys(gather(f"{name}.b", OpSpec)) == expected[1:]


def test_packages_within_a_package_are_entered(package):
    assert keys(gather(package(inner__in__deep='A = declare("sample.deep", nn.ReLU)'), OpSpec)) == ["sample.deep"]


def test_what_a_module_imports_does_not_count_again(package):
    name = package(
        a="""
        A = declare("sample.a", nn.ReLU)

        @op("sample.own")
        class Own(Op):
            pass
        """,
        b="""
        from sample_records.a import A, Own
        from torch_dag_core.ops.layout import Roll

        SAME = A

        class Inherits(Own):
            pass
        """,
    )
    assert keys(gather(name, OpSpec)) == ["sample.a", "sample.own"]


def test_each_type_of_record_is_gathered_by_itself(package):
    name = package(
        a="""
        A = declare("sample.a", nn.ReLU)
        B = AtomicSpec(target=nn.Tanh)

        @normalizes("sample_function")
        def normalize(call, x):
            return x
        """
    )
    assert keys(gather(name, OpSpec)) == ["sample.a"]
    assert [spec.target for spec in gather(name, AtomicSpec)] == [nn.Tanh]
    assert [spec.functions for spec in gather(name, Normalizer)] == [("sample_function",)]


@pytest.mark.parametrize(
    ("again", "match"),
    [
        ('B = declare("sample.a", nn.Tanh)', r"'sample.a' is declared in sample_records.b and in sample_records.a"),
        ('B = declare("sample.c", nn.Tanh, aliases=("sample.a",))', r"'sample.a' is declared in sample_records.b"),
    ],
)
def test_two_records_of_one_name_are_refused(package, again, match):
    name = package(a='A = declare("sample.a", nn.ReLU)', b=again)
    with pytest.raises(DuplicateOpError, match=match):
        gather(name, OpSpec)


def test_two_records_of_one_name_in_one_module_are_refused(package):
    name = package(a='A = declare("sample.a", nn.ReLU)\nB = declare("sample.a", nn.Tanh)')
    with pytest.raises(DuplicateOpError, match=r"'sample.a' is declared in sample_records.a and in sample_records.a"):
        gather(name, OpSpec)


class Configured(nn.Module):
    def config(self):
        return {}


@pytest.mark.parametrize(("target", "codec"), [(Op, OpCodec), (Configured, ClassCodec), (nn.Linear, ModuleCodec)])
def test_a_class_is_saved_by_what_it_says_of_itself(target, codec):
    assert type(declare("sample.a", target).codec) is codec
    assert declare("sample.a", target, codec=None).codec is None


def test_a_declared_class_is_the_class_itself():
    class Own(Op):
        pass

    assert op("sample.own")(Own) is Own


# Older keys ------------------------------------------------------------------------------------------------------


def test_an_op_is_found_by_its_older_keys():
    registry = Registry()
    registry.add(declare("sample.new", nn.ReLU, aliases=("sample.old",)), owner="me")
    for each in (registry, registry.copy()):
        assert each.find("sample.old") is each.get("sample.new") is each.get("sample.old")
        assert [spec.key for spec in each.ops()] == ["sample.new"]


@pytest.mark.parametrize("facts", [{}, {"aliases": ("sample.old",)}])
def test_an_older_key_cannot_be_taken(facts):
    registry = Registry()
    registry.add(declare("sample.new", nn.ReLU, aliases=("sample.old",)), owner="me")
    key = "sample.other" if facts else "sample.old"
    with pytest.raises(DuplicateOpError, match=r"op key 'sample.old' is registered by 'me' and again by 'you'"):
        registry.add(declare(key, nn.Tanh, **facts), owner="you")
    assert registry.for_class(nn.Tanh) is None


def test_an_older_key_lies_in_the_namespace_of_the_op():
    with pytest.raises(ValueError, match=r"aliases of the op 'sample.new' must lie in its namespace 'sample'"):
        declare("sample.new", nn.ReLU, aliases=("core.old",))
