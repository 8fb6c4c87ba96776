"""The safety net: calls of pure torch functions that have no op of their own, by an allowlist of names."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import fill

_NAMESPACES: dict[str, Any] = {
    "torch": torch,
    "functional": torch.nn.functional,
    "tensor": torch.Tensor,
    "fft": torch.fft,
    "special": torch.special,
    "linalg": torch.linalg,
}

ALLOWED: dict[str, tuple[str, ...]] = {
    "torch": (
        "acos", "acosh", "addbmm", "addcdiv", "addcmul", "addmm", "addmv", "addr", "all", "aminmax", "angle", "any",
        "argsort", "asin", "asinh", "atan", "atanh", "baddbmm", "bincount", "block_diag", "broadcast_to", "bucketize",
        "cartesian_prod", "cdist", "celu", "channel_shuffle", "clamp",
        "clamp_max", "clamp_min", "clone", "column_stack", "combinations", "complex",
        "conj", "constant_pad_nd", "copysign", "corrcoef", "cosh", "cosine_similarity", "count_nonzero", "cov",
        "cross", "cummax", "cummin", "cumprod", "deg2rad", "diag", "diag_embed", "diagonal", "diff", "digamma",
        "dist", "dot", "dstack", "erfc", "erfinv", "exp2", "fix", "flatten", "fliplr", "flipud", "float_power",
        "fmax", "fmin", "fmod", "frac", "gradient", "heaviside", "histc", "hstack", "hypot", "imag", "index_add",
        "index_copy", "index_fill", "index_put", "inner", "isclose", "isfinite", "isin", "isinf", "isneginf",
        "isposinf", "isreal", "kron", "kthvalue", "lerp", "lgamma", "log10", "log2", "logaddexp", "logaddexp2",
        "logcumsumexp", "logdet", "logit", "masked_scatter", "masked_select", "max", "median", "meshgrid", "min",
        "mode", "moveaxis", "movedim", "mv", "nan_to_num", "nanmean", "nanmedian", "nanquantile", "nansum",
        "narrow", "nextafter", "nonzero", "norm", "one_hot", "outer", "pairwise_distance", "pdist", "polar", "prelu",
        "prod", "quantile", "rad2deg", "ravel", "real", "renorm", "resolve_conj", "resolve_neg", "rot90",
        "scatter", "scatter_add", "scatter_reduce", "searchsorted", "select", "select_scatter", "sgn", "sinc",
        "sinh", "slice_scatter", "stft", "swapaxes", "swapdims", "take", "take_along_dim", "tan", "tensor_split",
        "tensordot", "trace", "trapezoid", "tril_indices", "triu_indices", "trunc", "unique_consecutive",
        "unsafe_chunk", "unsafe_split", "vander", "vdot", "view_as_complex", "view_as_real", "vstack",
        "xlogy", "zeros_like", "ones_like", "full_like", "empty_like", "det", "inverse", "pinverse", "cholesky",
        "conv_tbc", "rms_norm", "grid_sampler", "affine_grid_generator", "native_group_norm",
    ),
    "functional": (
        "affine_grid", "bilinear", "cosine_similarity", "embedding_bag", "fold", "glu", "gumbel_softmax",
        "hardshrink", "instance_norm", "local_response_norm", "logsigmoid", "lp_pool1d", "lp_pool2d", "max_unpool1d",
        "max_unpool2d", "max_unpool3d", "one_hot", "pairwise_distance", "rrelu", "softmin", "softshrink", "softsign",
        "tanhshrink", "threshold", "unfold", "upsample", "cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss",
        "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
    ),
    "tensor": ("index_put", "masked_scatter", "new_full", "type", "sum_to_size", "as_strided"),
    "fft": (
        "fft", "fft2", "fftn", "fftfreq", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft",
        "irfft2", "irfftn", "rfft", "rfft2", "rfftn", "rfftfreq",
    ),
    "special": ("bessel_j0", "bessel_j1", "entr", "expit", "exp2", "gammaln", "i0", "i0e", "i1", "log_softmax", "ndtr",
                "softmax", "xlog1py", "zeta"),
    "linalg": ("cross", "det", "inv", "matmul", "matrix_exp", "matrix_norm", "norm", "pinv", "solve", "vecdot",
               "vector_norm", "multi_dot"),
}  # fmt: skip
"""Pure functions that a graph may call by name, by namespace."""


@lru_cache(maxsize=1)
def allowed_functions() -> dict[str, Callable[..., Any]]:
    """Return the allowlist as ``namespace.name`` to function; names that this torch lacks are left out."""
    return {
        f"{space}.{name}": getattr(_NAMESPACES[space], name)
        for space, names in ALLOWED.items()
        for name in names
        if hasattr(_NAMESPACES[space], name)
    }


class TorchCall(Op):
    """One call of an allowed torch function; algorithms treat it as opaque.

    ``arguments`` and ``keywords`` hold constants, with a `Slot` for each operand.
    """

    function: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()

    def __init__(self, function: str, arguments: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...] = ()) -> None:
        super().__init__(function, arguments, keywords)
        if function not in allowed_functions():
            message = f"{function!r} is not on the allowlist of torch functions that a graph may call"
            raise ValueError(message)

    def forward(self, *operands: Tensor) -> Any:
        """Call the function; several results come as a tuple."""
        keywords = {name: fill(value, operands) for name, value in self.keywords}
        result = allowed_functions()[self.function](*fill(self.arguments, operands), **keywords)
        return tuple(result) if isinstance(result, (tuple, list)) else result
