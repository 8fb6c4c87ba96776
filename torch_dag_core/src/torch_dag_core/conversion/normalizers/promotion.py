"""Promotion: a function call on the parameters of one module becomes a module with its name.

``F.linear(x, self.fc.weight, self.fc.bias)`` becomes an `nn.Linear` named ``fc``. So a layer looks the same whether it
was called as a module or as a function, and the keys of checkpoints stay valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from torch import Tensor, nn

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.graph.nested import leaves
from torch_dag_core.tracing.recording import Entry, Held, Recording, Ref

PROMOTED = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "layer_norm", "rms_norm", "group_norm", "batch_norm", "prelu",
})  # fmt: skip
"""Functions whose calls can become modules."""


def possible_owners(recordings: Iterable[Recording]) -> frozenset[str]:
    """Return the paths of the modules that `promote` may rebuild.

    These are modules whose ``weight`` is read only by one of these functions, together with other tensors of the
    module.
    """
    return frozenset(
        entry.path.rpartition(".")[0]
        for recording in recordings
        for entry, readers in zip(recording.entries, recording.readers, strict=True)
        if isinstance(entry, Held) and entry.path.endswith(".weight") and _are_one_layer(recording, readers)
    )


def readers_by_path(recordings: Iterable[Recording]) -> dict[str, frozenset[str | None]]:
    """Return, for the path of each parameter or buffer, the names of the functions that read it.

    None stands for a tensor that the model returns.
    """
    found: dict[str, frozenset[str | None]] = {}
    for recording in recordings:
        for entry, readers in zip(recording.entries, recording.readers, strict=True):
            if isinstance(entry, Held):
                names = frozenset(None if reader is None else reader.name for reader in readers)
                found[entry.path] = found.get(entry.path, frozenset()) | names
    return found


def _are_one_layer(recording: Recording, readers: tuple[Entry | None, ...]) -> bool:
    """Return whether all readers call the same function of `PROMOTED`, each on tensors of one module."""
    calls = [reader for reader in readers if reader is not None and reader.name in PROMOTED]
    if len(calls) < len(readers) or len({call.name for call in calls}) != 1:
        return False
    return all(_reads_one_module(recording, call) for call in calls)


def _reads_one_module(recording: Recording, call: Entry) -> bool:
    """Return whether all tensors but the first operand belong to one module.

    A group norm with a weight but no bias does not count, because `nn.GroupNorm` has both or neither.
    """
    first = leaves(call.args[:1])
    others = [recording.entries[operand] for operand in call.operands if Ref(operand) not in first]
    held = [entry for entry in others if isinstance(entry, Held)]
    owners = {entry.path.rpartition(".")[0] for entry in held}
    complete = len(others) > 1 or call.name != "group_norm"
    return complete and len(owners) == 1 and len(held) == len(others)


def promote(
    call: Call, input: Value, tensors: Mapping[str, Value | None], make: Callable[[], nn.Module], kind: str
) -> Value | None:
    """Emit the module ``make()`` with the given tensors, or return None if they do not belong to one module.

    Args:
        call: The function call.
        input: The tensor on which the module is called.
        tensors: The tensors of the module by attribute name; None for absent ones.
        make: Builds the module on the meta device.
        kind: Name of the function; every other use of the tensors must be a call of it.
    """
    prefix = _common_owner(tensors)
    if prefix is None or not all(_only_read_by(value, kind) for value in tensors.values() if value is not None):
        return None
    key = (kind, prefix)
    module = call.builder.promoted.get(key)
    if module is None:
        module = call.builder.promoted[key] = make()
        for name, value in tensors.items():
            if value is not None:
                _set_tensor(module, name, call.builder.copy_of(cast("Tensor", value.tensor)))
    value = call.emit(module, input, path=prefix) if prefix else call.emit(module, input, stem=call.name)
    if not prefix:
        call.builder.moved[value.vertex.name] = ""
    return value


def _common_owner(tensors: Mapping[str, Value | None]) -> str | None:
    """Return the path of the module that holds every tensor under its attribute name, or None."""
    owners = set()
    for name, value in tensors.items():
        if value is None:
            continue
        owner, _, attribute = value.held.rpartition(".")
        if attribute != name or value.tensor is None:
            return None
        owners.add(owner)
    return owners.pop() if len(owners) == 1 else None


def _only_read_by(value: Value, kind: str) -> bool:
    return value.read_by <= {kind}


def _set_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)
