"""Calls of torch functions without an op of their own, restricted to an allowlist of pure functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import fill
from torch_dag_core.ops.flops import Parameters, Shapes, elementwise, free, numel, per_input, times_input, times_output
from torch_dag_core.plugins.declarations import op
from torch_dag_core.plugins.registry import FlopsRule

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
        "conv_tbc", "rms_norm", "grid_sampler", "affine_grid_generator", "native_group_norm", "normal", "bernoulli",
        "poisson", "multinomial", "binomial", "_grouped_mm", "fake_quantize_per_tensor_affine",
        "fake_quantize_per_channel_affine",
    ),
    "functional": (
        "affine_grid", "bilinear", "cosine_similarity", "embedding_bag", "fold", "glu", "gumbel_softmax",
        "hardshrink", "instance_norm", "local_response_norm", "logsigmoid", "lp_pool1d", "lp_pool2d", "max_unpool1d",
        "max_unpool2d", "max_unpool3d", "one_hot", "pairwise_distance", "rrelu", "softmin", "softshrink", "softsign",
        "tanhshrink", "threshold", "unfold", "upsample", "cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss",
        "nll_loss", "binary_cross_entropy", "grouped_mm",
        "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
        "scaled_dot_product_attention", "binary_cross_entropy_with_logits", "kl_div",
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
"""Functions without side effects, but for draws of random numbers, that a graph may call; by namespace."""


OPTIONAL: dict[str, tuple[str, ...]] = {
    "torchvision": ("deform_conv2d", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"),
}
"""The same for operators that another package registers with torch; the package is imported when a graph has one."""


@lru_cache(maxsize=1)
def allowed_functions() -> dict[str, Callable[..., Any]]:
    """Return the allowlist as ``namespace.name`` to function; names that this torch lacks are left out.

    Functions of other packages are added by `is_allowed`.
    """
    return {
        f"{space}.{name}": getattr(_NAMESPACES[space], name)
        for space, names in ALLOWED.items()
        for name in names
        if hasattr(_NAMESPACES[space], name)
    }


def is_allowed(name: str) -> bool:
    """Tell whether a graph may call ``namespace.name``.

    Raises:
        ValueError: the package that has the function is not installed.
    """
    space, _, short = name.partition(".")
    if name not in allowed_functions() and short in OPTIONAL.get(space, ()):
        try:
            importlib.import_module(space)
            allowed_functions()[name] = getattr(getattr(torch.ops, space), short)
        except (ImportError, AttributeError) as error:
            message = f"the graph calls {name!r}, but {space} cannot be imported; install it (pip install {space})"
            raise ValueError(message) from error
    return name in allowed_functions()


def _product(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of contracting the last dimension of the first operand."""
    del module, parameters
    return 2 * numel(outputs[0]) * inputs[0][-1]


def _sum_and_product(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of the product of the second and third operand, added to the first."""
    return _product(module, inputs[1:], outputs, parameters) + numel(outputs[0])


def _grouped_product(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the cost of one product for each group; of two matrices, each group contracts a part of the columns."""
    both_matrices = len(inputs[0]) == len(inputs[1]) == 2
    return _product(module, inputs, [outputs[0][1:]] if both_matrices else outputs, parameters)


def _deformable_convolution(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the cost of the convolution, 8 for each bilinear sample (arXiv:1703.06211), and the bias."""
    del module, parameters
    window = numel(inputs[1][1:])
    samples = numel(outputs[0][:1]) * numel(outputs[0][2:]) * inputs[0][1] * numel(inputs[1][2:])
    return 2 * numel(outputs[0]) * window + 8 * samples + numel(outputs[0])


def _summed_products(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of a batch of products, summed and added to the first operand."""
    del module, parameters
    return 2 * numel(inputs[1]) * outputs[0][-1] + numel(outputs[0])


_COSTS: dict[FlopsRule, str] = {
    elementwise: """
        torch.acos torch.acosh torch.addr torch.asin torch.asinh torch.atan torch.atanh torch.celu torch.clamp
        torch.clamp_max torch.clamp_min torch.copysign torch.cosh torch.deg2rad torch.diff torch.digamma torch.erfc
        torch.erfinv torch.exp2 torch.fix torch.float_power torch.fmax torch.fmin torch.fmod torch.frac torch.heaviside
        torch.hypot torch.isclose torch.isfinite torch.isinf torch.isneginf torch.isposinf torch.kron torch.lgamma
        torch.log10 torch.log2 torch.logaddexp torch.logaddexp2 torch.logit torch.nan_to_num torch.nextafter torch.outer
        torch.prelu torch.rad2deg torch.sgn torch.sinc torch.sinh torch.tan torch.trunc torch.xlogy
        functional.hardshrink functional.logsigmoid functional.rrelu functional.softshrink functional.softsign
        functional.tanhshrink functional.threshold torch.normal torch.bernoulli torch.poisson torch.binomial
        torch.fake_quantize_per_tensor_affine torch.fake_quantize_per_channel_affine functional.dropout
        functional.dropout1d functional.dropout2d functional.dropout3d functional.alpha_dropout
        functional.feature_alpha_dropout special.bessel_j0 special.bessel_j1
        special.entr special.expit special.exp2 special.gammaln
        special.i0 special.i0e special.i1 special.ndtr special.xlog1py special.zeta
    """,
    free: """
        torch.block_diag torch.broadcast_to torch.cartesian_prod torch.channel_shuffle torch.clone
        torch.column_stack torch.combinations torch.complex torch.conj torch.constant_pad_nd torch.diag torch.diag_embed
        torch.diagonal torch.dstack torch.flatten torch.fliplr torch.flipud torch.hstack torch.imag torch.index_copy
        torch.index_fill torch.index_put torch.masked_scatter torch.masked_select torch.meshgrid torch.moveaxis
        torch.movedim torch.narrow torch.ravel torch.real torch.resolve_conj torch.resolve_neg torch.rot90
        torch.scatter torch.select torch.select_scatter torch.slice_scatter torch.swapaxes torch.swapdims torch.take
        torch.take_along_dim torch.tensor_split torch.tril_indices torch.triu_indices torch.unsafe_chunk
        torch.unsafe_split torch.view_as_complex torch.view_as_real torch.vstack torch.zeros_like torch.ones_like
        torch.full_like torch.empty_like functional.one_hot functional.unfold tensor.index_put tensor.masked_scatter
        tensor.new_full tensor.type tensor.as_strided fft.fftshift fft.ifftshift
    """,
    per_input: """
        torch.all torch.aminmax torch.any torch.bincount torch.count_nonzero torch.cummax torch.cummin torch.cumprod
        torch.index_add torch.logcumsumexp torch.max torch.min torch.nanmean torch.nansum torch.prod torch.scatter_add
        torch.scatter_reduce torch.trace functional.fold tensor.sum_to_size
    """,
    times_output(2): "torch.addcmul torch.addcdiv functional.glu torch.lerp",
    times_output(4): "torch.rms_norm",
    times_output(5): "functional.softmin special.softmax special.log_softmax torch.native_group_norm",
    times_input(
        2
    ): "torch.norm linalg.norm linalg.vector_norm linalg.matrix_norm torch.dist torch.dot torch.vdot torch.mv",
    _product: "torch.inner linalg.matmul",
    _sum_and_product: "torch.addmm torch.addmv torch.baddbmm",
    _summed_products: "torch.addbmm",
    _grouped_product: "functional.grouped_mm torch._grouped_mm",
}
COSTS: dict[str, FlopsRule] = {name: rule for rule, names in _COSTS.items() for name in names.split()}
"""Cost rules of some of the functions; that of the others is unknown."""
OPTIONAL_COSTS: dict[str, FlopsRule] = {"torchvision.deform_conv2d": _deformable_convolution}
"""The same for operators of other packages."""


def torch_call(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of the function, or NotImplemented if they are unknown."""
    rule = COSTS.get(module.function) or OPTIONAL_COSTS.get(module.function)
    return NotImplemented if rule is None else rule(module, inputs, outputs, parameters)


@op("core.torch_call", flops=torch_call)
class TorchCall(Op):
    """One call of an allowed torch function, which algorithms treat as a black box.

    ``arguments`` and ``keywords`` hold constants, with a `Slot` for each operand.

    Raises:
        ValueError: the function is not on the allowlist.
    """

    function: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()

    def __init__(self, function: str, arguments: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...] = ()) -> None:
        super().__init__(function, arguments, keywords)
        if not is_allowed(function):
            message = f"{function!r} is not on the allowlist of torch functions that a graph may call"
            raise ValueError(message)

    def forward(self, *operands: Tensor) -> Any:
        """Return the result of the function; several results as a tuple."""
        keywords = {name: fill(value, operands) for name, value in self.keywords}
        result = allowed_functions()[self.function](*fill(self.arguments, operands), **keywords)
        return tuple(result) if isinstance(result, (tuple, list)) else result
