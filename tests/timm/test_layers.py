"""Every module class of timm's layers, converted inside a model, against timm's own code.

The tables in ``layers/`` are data: for each class, its arguments and the shapes of its operands, in as many variants as
it takes to see its code. A shape's -1 is the batch; a list among the shapes stands for itself, as a tuple.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import runpy
import zlib
from pathlib import Path

import pytest
import timm.layers
import torch
from torch import nn

from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization import load, save
from torch_dag_core.testing import awaken
from torch_dag_timm.releases import at_least

IS_OLDER = not at_least(1, 0, 31)  # than the tables
SINCE = {"drop.DropBlock2d": (1, 0, 23)}  # the first release in which a class computes what the plugin stands in for
BATCH = 6  # what divides it divides the others
TOLERANCE = 1e-5
TABLES = [runpy.run_path(str(file)) for file in sorted(Path(__file__).with_name("layers").glob("*.py"))]
LAYERS = {name: variants for table in TABLES for name, variants in table["LAYERS"].items()}
REFUSED = {name: refusal for table in TABLES for name, refusal in table.get("REFUSED", {}).items()}
UNTIL_FIXED = {name: failure for table in TABLES for name, failure in table.get("UNTIL_FIXED", {}).items()}
CASES = {f"{name}-{number}": (name, *case) for name, cases in LAYERS.items() for number, case in enumerate(cases)}


def defined_in(module):
    """Iterate over the module classes that a Python module defines and that can be called."""
    for name, cls in vars(module).items():
        is_own = inspect.isclass(cls) and (cls.__module__, cls.__name__) == (module.__name__, name)
        if is_own and issubclass(cls, nn.Module) and cls.forward is not nn.Module.forward:
            yield cls


CLASSES = {
    f"{info.name}.{cls.__name__}": cls
    for info in pkgutil.iter_modules(timm.layers.__path__)
    for cls in defined_in(importlib.import_module(f"timm.layers.{info.name}"))
}


class Model(nn.Module):
    """A model whose one layer gets a tensor that the model made."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, *others):
        return self.layer(x * 1.0, *others)


def operands(shapes, batch):
    """Return random tensors of these shapes, and the constants among them."""
    return tuple(
        torch.randn([batch if size < 0 else size for size in shape]) if isinstance(shape, tuple) else tuple(shape)
        for shape in shapes
    )


def enlarged(shapes, enlarge):
    """Return shapes of other images."""
    return [shape[:2] + enlarge(*shape[2:]) if len(shape) == 4 else shape for shape in shapes]


def refuses(function, inputs, *errors):
    """Tell whether a call raises one of these errors."""
    try:
        with torch.no_grad():
            function(*inputs)
    except errors:
        return True
    return False


def build(name, options):
    """Return a model of one layer."""
    return Model(CLASSES[name](**copy.deepcopy(options))).eval()


def build_or_skip(name, options, shapes):
    """Skip what an older timm lacks, calls in another way, or gives buffers only when it is called."""
    if IS_OLDER:
        reason = f"{name} of timm {timm.__version__}"
        if not at_least(*SINCE.get(name, ())):
            pytest.skip(f"{reason} is another function")
        try:
            model = build(name, options)
            before = model.state_dict().keys()
            with torch.no_grad():
                model(*operands(shapes, BATCH))
        except (KeyError, TypeError, RuntimeError) as error:
            pytest.skip(f"{reason}: {error!r}")
        if model.state_dict().keys() != before:
            pytest.skip(f"{reason} makes a buffer when it is called")
    return build(name, options)


@pytest.fixture(scope="module")
def vocabulary():
    """Return what the core can load where there is no plugin."""
    registry = Registry()
    for spec in specs():
        registry.add(spec, owner="torch-dag-core")
    return registry


def cases(test):
    """Return the cases of a test; those that wait for a repair must fail as their table says."""
    waiting = {
        case: pytest.mark.xfail(raises=error, strict=True)
        for (name, case), error in UNTIL_FIXED.items()
        if name == test
    }
    return [pytest.param(case, marks=[waiting[case]] if case in waiting else []) for case in CASES]


@pytest.mark.parametrize("case", cases("converts"))
def test_a_layer_converts(case, convert, assert_equal, vocabulary, tmp_path):
    name, options, *shapes = CASES[case]
    torch.manual_seed(zlib.crc32(case.encode()))
    model = awaken(build_or_skip(name, options, shapes))
    dag = convert(model, operands(shapes, BATCH))
    assert dag.input_spec.tensors[0].shape[0] is None
    for batch, training in ((1, False), (BATCH, False), (BATCH, True), (2 * BATCH, True)):
        assert_equal(model, dag, *operands(shapes, batch), training=training, tolerance=TOLERANCE)
    save(dag, tmp_path / "layer.safetensors")
    loaded = load(tmp_path / "layer.safetensors", registry=vocabulary)
    for training in (False, True):
        assert_equal(dag, loaded, *operands(shapes, BATCH), training=training)


@pytest.mark.parametrize("case", cases("follows"))
def test_other_images_are_followed_or_refused(case, convert, assert_equal):
    name, options, *shapes = CASES[case]
    model = awaken(build_or_skip(name, options, shapes))
    dag = convert(model, operands(shapes, BATCH))
    model(*operands(shapes, BATCH))  # some layers keep something of the first size that they see
    for enlarge in (lambda h, w: (h + 1, w + 1), lambda h, w: (2 * h, 2 * w), lambda h, w: (h, w + 64)):
        others = operands(enlarged(shapes, enlarge), 2)
        if not refuses(model, others, RuntimeError, AssertionError) and not refuses(dag, others, InputError):
            assert_equal(model, dag, *others, tolerance=TOLERANCE)


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_is_refused_by_one_clear_sentence(name, convert):
    message, options, *shapes = REFUSED[name]
    with pytest.raises(TraceError, match=message) as caught:
        convert(build(name, options), operands(shapes, BATCH))
    assert str(caught.value).count("\n") == 0


@pytest.mark.skipif(IS_OLDER, reason="the tables are about a later timm")
def test_every_class_is_in_one_table():
    assert LAYERS.keys() | REFUSED.keys() == CLASSES.keys()
    assert not LAYERS.keys() & REFUSED.keys()
