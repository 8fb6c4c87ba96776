"""Calls of normalizers and converters, with checks on those of plugins."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from torch_dag_core.conversion.builder import Call, Emitted, Value
from torch_dag_core.errors import PluginError, TorchDagError, TraceError
from torch_dag_core.graph.nested import leaves
from torch_dag_core.plugins.calling import errors_attributed_to, is_foreign, release_name
from torch_dag_core.plugins.discovery import CORE_DISTRIBUTION


def ask(owner: str, what: str, function: Callable[..., Emitted], call: Call, *module: nn.Module) -> Emitted:
    """Call a normalizer or converter and return its result.

    Args:
        owner: Distribution that registered the function.
        what: Description of the function, for error messages.
        function: The function; it is called with ``call``, ``module`` if given, and the arguments of the call.
        call: The recorded call.
        *module: For converters, the graph's copy of the called module.

    Raises:
        PluginError: a function of a plugin raised, returned something other than a value of the graph, or removed
            vertices from the graph.
        TraceError: a function of the core raised.
    """
    dag = call.builder.dag
    before = len(dag)
    with errors_attributed_to(owner, what), explaining(call) if owner == CORE_DISTRIBUTION else nullcontext():
        result = function(call, *module, *call.args, **call.keywords)
    if not is_foreign(owner):
        return result
    if result is not NotImplemented and not _is_value(result):
        _refuse(owner, f"{what} of {release_name(owner)} returned {reprlib.repr(result)}, not what call.emit returned")
    if len(dag) < before:
        _refuse(owner, f"{what} of {release_name(owner)} removed vertices of the graph; it may only emit new ones")
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
