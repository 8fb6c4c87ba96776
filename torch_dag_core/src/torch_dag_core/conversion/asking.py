"""Calls of normalizers and converters, whoever registered them."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from torch_dag_core.conversion.builder import Call, Emitted, Value
from torch_dag_core.errors import PluginError, TorchDagError, TraceError
from torch_dag_core.graph.nested import leaves
from torch_dag_core.plugins.calling import CORE_DISTRIBUTION, blaming, is_foreign, named


def ask(owner: str, what: str, function: Callable[..., Emitted], call: Call, *module: nn.Module) -> Emitted:
    """Return what a normalizer or converter makes of a call.

    Args:
        owner: Distribution that registered the function.
        what: What the function is, for messages.
        function: Called with the call, the module where there is one, and the call's own arguments.
        call: The call.
        module: The graph's copy of the called module, for converters.

    Raises:
        PluginError: a function of a plugin raised, returned no value of the graph, or took vertices out of it.
        TraceError: a function of the core raised.
    """
    dag = call.builder.dag
    before = len(dag)
    with blaming(owner, what), explaining(call) if owner == CORE_DISTRIBUTION else nullcontext():
        result = function(call, *module, *call.args, **call.keywords)
    if not is_foreign(owner):
        return result
    if result is not NotImplemented and not _is_value(result):
        _refuse(owner, f"{what} of {named(owner)} returned {reprlib.repr(result)}, not what call.emit returned")
    if len(dag) < before:
        _refuse(owner, f"{what} of {named(owner)} removed vertices of the graph; it may only emit new ones")
    return result


@contextmanager
def explaining(call: Call) -> Iterator[None]:
    """Turn errors inside the block, other than torch-dag's own, into the `TraceError` that names the call."""
    try:
        yield
    except TorchDagError:
        raise
    except Exception as error:
        called = f"{call.name!r}, called in module {call.scope!r} at {call.source}"
        message = (
            f"{called}, cannot be turned into vertices ({type(error).__name__}: {error}); "
            "register a normalizer for it, or the enclosing module as atomic (atomic_modules=)"
        )
        raise TraceError(message) from error


def _is_value(result: object) -> bool:
    values = leaves(result) if isinstance(result, (Value, tuple, list)) else []
    return bool(values) and all(value is None or isinstance(value, Value) for value in values)


def _refuse(owner: str, message: str) -> None:
    raise PluginError(owner, message)
