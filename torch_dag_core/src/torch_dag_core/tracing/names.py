"""One name for each torch function, whichever of its spellings was called."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket

from torch_dag_core.tracing.recording import Live

IN_PLACE_DUNDERS = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__ipow__", "__iand__", "__ior__"}
)

ESCAPES = frozenset({
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist", "numpy", "__array__",
    "__contains__", "equal", "allclose", "is_nonzero", "cpu_numpy",
})  # fmt: skip
"""Functions that turn the content of a tensor into Python values."""

RANDOM = frozenset({
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_",
    "normal", "normal_", "uniform_", "multinomial", "poisson", "exponential_", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout", "gumbel_softmax", "rrelu",
    "random_", "log_normal_", "cauchy_", "geometric_", "binomial", "rrelu_", "dropout_", "alpha_dropout_",
    "feature_alpha_dropout_", "feature_dropout_", "native_dropout", "_standard_gamma", "_sample_dirichlet",
})  # fmt: skip


def spelling(function: Callable[..., object]) -> str:
    """Return the function's own name; that of the property for attribute access (``x.shape``).

    Operators of other libraries keep their namespace: ``torchvision::roi_align``.
    """
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return str(function.__self__.__name__)  # type: ignore[attr-defined]
    if name == "__set__":
        return f"set {function.__self__.__name__}"  # type: ignore[attr-defined]
    if not name:
        return str(function)
    if isinstance(function, OpOverloadPacket):
        space, _, short = str(function._qualified_op_name).partition("::")
        return short if space == "aten" else f"{space}::{short}"
    return str(name)


_OF_NUMPY = {"axis": "dim", "keepdims": "keepdim"}


def renamed(keywords: dict[str, Live]) -> dict[str, Live]:
    """Return keyword arguments under torch's names where NumPy's, which torch takes too, were given."""
    return {_OF_NUMPY.get(name, name): value for name, value in keywords.items()}


_DISTINCT = frozenset({"normal_", "bernoulli_"})
"""In-place draws that take other arguments than the functions without the underscore."""
_SAME = {
    "log_sigmoid": "logsigmoid", "_threshold": "threshold",
    "linalg_vector_norm": "vector_norm", "linalg_matmul": "matmul", "special_softmax": "softmax",
    "special_log_softmax": "log_softmax", "special_expit": "sigmoid", "special_expm1": "expm1", "special_erf": "erf",
    "special_log1p": "log1p", "special_logsumexp": "logsumexp",
}  # fmt: skip


def canonical(name: str) -> str:
    """Return the name of the out-of-place function: ``add_`` and ``__iadd__`` are ``add``."""
    if name in _SAME:
        return _SAME[name]
    if name in _DISTINCT:
        return name
    if name in IN_PLACE_DUNDERS:
        return "__" + name[3:]
    if name.endswith("_") and not name.endswith("__") and not name.startswith("_"):
        return name[:-1]
    return name


def is_property(function: Callable[..., object]) -> bool:
    """Tell whether the call is an attribute access."""
    return getattr(function, "__name__", "") == "__get__"


_DATA_SIZED = frozenset({
    "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "_unique", "_unique2", "bincount",
})  # fmt: skip


def sizing_operands(name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> list[Tensor]:
    """Return the tensors whose values, not just their shapes, decide on the shape of the result."""
    operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if name in _DATA_SIZED:
        return operands
    if name == "__getitem__":
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        return [item for item in items if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8)]
    if name == "where":
        return operands if len(args) + len(kwargs) == 1 else []
    if name == "repeat_interleave":
        return operands[1:] if kwargs.get("output_size") is None else []
    open_count = name == "one_hot" and (args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) == -1
    return operands if open_count else []
