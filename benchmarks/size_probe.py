"""Convert many small models that compute with sizes, and tell whether any graph is wrong without a word.

Each model takes one size of its input, puts it through a random expression, and uses the result in one place: as a
factor, a pad amount, the bound of a slice, a loop count, and so on. Its graph is compared with the model at the
example and at other sizes. Each comparison ends in ``equal``, ``refused`` (an `InputError`, or no graph at all) or
``wrong``; the exit status is 1 where any is wrong.
"""

from __future__ import annotations

import argparse
import collections
import copy  # noqa: F401
import itertools
import operator  # noqa: F401
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, isqrt  # noqa: F401
from typing import Any

import numpy as np  # noqa: F401
import torch
from torch import Tensor, nn

import torch_dag_core as td

ATOMS = {
    "batch": ("x.shape[0]", "x.size(0)", "len(x)", "x.size()[0]"),
    "length": ("x.shape[1]", "x.size(1)", "x.size(-1)"),
    "height": ("x.shape[2]", "x.size(2)", "x.shape[-2]"),
    "width": ("x.shape[3]", "x.size(3)", "x.shape[-1:][0]"),
}
WHOLE = (
    "x.numel()", "x.nbytes", "x.shape.numel()", "x.size().numel()", "x.stride(0)", "x.stride()[0]",
    "x.element_size() * x.nelement()", "x.shape[1:].numel()",
)  # fmt: skip
FUNCTIONS = (
    "{} % 2", "{} % 3", "{} % 4 + 1", "(-{}) % 4", "(7 - {} % 7) % 7", "{} & 1", "{} & 6", "{} | 4", "{} ^ 3",
    "{} >> 1", "{} << 1", "~{} & 7", "{} // 2", "{} // 3", "({} + 1) // 2", "-(-{} // 3)", "{} * 2 + 1", "abs(2 - {})",
    "divmod({}, 3)[0]", "divmod({}, 4)[1]", "divmod(12, {})[1]", "math.gcd({}, 6)", "math.lcm({}, 4)",
    "math.isqrt({})", "gcd({}, 4)", "isqrt({})", "int({} ** 0.5)", "int({} / 2)", "int({} / 3 + 0.5)", "int({} * 0.5)",
    "int(0.5 * {})", "int(math.sqrt({}))", "math.ceil({} / 2)", "math.floor({} / 3)", "round({} / 2)", "int({})",
    "int(float({}))", "math.trunc({} / 4)", "{}.bit_length()", "bin({}).count('1')", "{}.bit_count()", "len(str({}))",
    "len(f'{{{}}}')", "len('%d' % {})", "len(repr({}))", "int(str({})[-1])", "hash({}) % 3", "TABLE.get({}, 3)",
    "(2 if {} in SMALL else 3)", "(2 if {} in (1, 2, 3) else 5)", "min({}, 4)", "max({}, 3)", "sum(range({}))",
    "len(range(0, {}, 2))", "sum(1 for _ in range({} // 2))", "LIST[{} % 4]", "len(LIST[:{}])", "len([0] * {}) % 3",
    "{}.as_integer_ratio()[0] % 3", "pow({}, 2) % 5", "pow(2, {} % 4)", "{} ** 2 % 5", "2 ** ({} % 3)",
    "operator.index({}) % 2", "{}.__index__() % 3", "int.from_bytes({}.to_bytes(4, 'big'), 'big') % 3",
    "{}.real % 3", "{}.numerator % 2", "copy.copy({}) % 2", "copy.deepcopy({}) % 3", "math.factorial({} % 4)",
    "math.comb({} % 5, 2)", "int(math.log2({} + 1))", "{}.conjugate() % 3", "(3 if {} > 3 else 1)",
    "(3 if 4.5 > {} else 1)", "(2 if {} else 1)", "sorted([3, {}])[0]", "int('{{}}'.format({})) % 2",
    "torch.Size([{}, 2]).numel() % 3", "np.int64({}).item() % 2", "int(np.sqrt({}))", "ord(chr({} % 3 + 65)) - 64",
)  # fmt: skip
PLACES = {
    "factor": "x * ({e})",
    "divisor": "x / (({e}) + 1)",
    "offset": "x + ({e})",
    "pad": "F.pad(x, (0, ({e}) % 5))",
    "pad first": "F.pad(x, (*[0] * (2 * x.dim() - 1), ({e}) % 4))",
    "view": "F.pad(x.flatten(1), (0, ({e}) % 3)).reshape(x.shape[0], -1, 1)",
    "expand": "x[:1].expand(({e}) % 4 + 1, *[-1] * (x.dim() - 1))",
    "slice": "x[: ({e}) % 3 + 1]",
    "last slice": "x[..., ({e}) % 3:]",
    "loop": "loop(x, ({e}) % 4)",
    "branch": "(x * 2 if ({e}) % 2 else x + 1)",
    "compare": "(x * 2 if ({e}) > 3 else x + 1)",
    "repeat": "x.repeat(({e}) % 3 + 1, *[1] * (x.dim() - 1))",
    "roll": "x.roll(({e}) % 3, -1)",
    "list": "x * LIST[({e}) % 4]",
    "number": "(x + 1, ({e}))",
    "zeros": "x.sum() + x.new_zeros(({e}) % 4 + 1)",
    "full": "x + torch.full((1,), ({e}))",
    "tensor": "x + torch.tensor(({e}))",
    "window": "F.pad(x, (0, (3 - x.shape[-1] % 3) % 3)).flatten(1) * ({e})",
}
EXAMPLES = {"batch": (1, 2, 3, 4, 6, 9), "length": (4, 6), "height": (8, 6, 14), "width": (8, 6, 14)}
OTHERS = {
    "batch": (1, 2, 3, 4, 5, 6, 7, 8, 12, 16), "length": (4, 5, 6, 7), "height": (8, 6, 7, 12, 24),
    "width": (8, 6, 9, 16, 40),
}  # fmt: skip


def loop(x: Tensor, count: int) -> Tensor:
    """Add one so many times."""
    for _ in range(count):
        x = x + 1
    return x


LIST, TABLE, SMALL = [1, 2, 3, 4], {1: 5, 2: 7, 12: 2}, {1, 2, 3}


class Probed(nn.Module):
    """Computes one expression, in the namespace of this module."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.function = eval(f"lambda x: {text}", globals())

    def forward(self, x: Tensor) -> Any:
        """Return what the expression gives."""
        return self.function(x)


@dataclass(frozen=True)
class Probe:
    """One model, and the sizes to try it at."""

    place: str
    dimension: str
    text: str
    example: int

    def input(self, size: int) -> Tensor:
        """Return an input in which the probed dimension has this size."""
        shape = {"batch": 2, "length": 4, "height": 8, "width": 8, self.dimension: size}
        dims = ("batch", "length") if self.dimension in ("batch", "length") else ("batch", None, "height", "width")
        torch.manual_seed(size)
        return torch.randn([2 if dim is None else shape[dim] for dim in dims])


def probes(count: int, seed: int) -> Iterator[Probe]:
    """Yield random probes."""
    rng = random.Random(seed)
    for _ in range(count):
        dimension = rng.choice(list(ATOMS))
        atom = rng.choice(ATOMS[dimension] if rng.random() < 0.85 else WHOLE)
        expression = rng.choice(FUNCTIONS).replace("{}", atom, 1)
        expression = expression.replace("{{", "{").replace("}}", "}") if "{{" in expression else expression
        if rng.random() < 0.3:
            outer = rng.choice([f for f in FUNCTIONS if "{{" not in f])
            expression = outer.replace("{}", f"({expression})", 1)
        place = rng.choice(list(PLACES))
        yield Probe(place, dimension, PLACES[place].replace("{e}", expression), rng.choice(EXAMPLES[dimension]))


def outcomes(probe: Probe) -> Iterator[str]:
    """Yield how each comparison ends."""
    model, example = Probed(probe.text), probe.input(probe.example)
    try:
        model(example)
    except Exception:  # noqa: BLE001  the expression has no value for this example
        return
    try:
        graph = td.build_from_unstructured_module(model, example)
    except td.TorchDagError:
        yield "refused"
        return
    for size in (probe.example, *OTHERS[probe.dimension]):
        yield outcome(model, graph, probe.input(size), is_example=size == probe.example)


def outcome(model: nn.Module, graph: nn.Module, x: Tensor, *, is_example: bool) -> str:
    """Return how one comparison ends."""
    try:
        expected = model(x)
    except Exception:  # noqa: BLE001  the model does not take this size
        return "no value"
    try:
        found = graph(x)
    except td.InputError as error:
        return f"wrong: {error}" if is_example else "refused"
    except Exception as error:  # noqa: BLE001
        return f"wrong: {type(error).__name__}: {error}"
    return "equal" if equal(found, expected) else f"wrong at {tuple(x.shape)}"


def equal(found: Any, expected: Any) -> bool:
    """Tell whether two results are the same."""
    if isinstance(expected, Tensor):
        return isinstance(found, Tensor) and found.shape == expected.shape and torch.equal(found, expected)
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(itertools.starmap(equal, zip(found, expected, strict=True)))
    return bool(found == expected) and type(found) is type(expected)


def main() -> None:
    """Print what is wrong, and how many comparisons ended in which way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    totals: collections.Counter[str] = collections.Counter()
    wrong = 0
    for probe in probes(options.count, options.seed):
        found = list(outcomes(probe))
        totals.update(one.split(":")[0].split(" at")[0] for one in found)
        bad = [one for one in found if one.startswith("wrong")]
        wrong += bool(bad)
        if bad:
            print(f"{probe.place}, {probe.dimension} {probe.example}: {probe.text}\n    {bad[0]:.200}", flush=True)
    print(f"{wrong} wrong of {options.count} probes; comparisons: {dict(totals)}")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
