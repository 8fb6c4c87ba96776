"""Function calls on a module's own parameters become that module again.

``F.linear(x, self.fc.weight, self.fc.bias)`` is `nn.Linear` under the name ``fc``, so that one layer has one
spelling and checkpoints keep their keys.
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
"""Functions whose calls may become modules."""


def possible_owners(recordings: Iterable[Recording]) -> frozenset[str]:
    """Return the paths of modules whose ``weight`` is read by such functions alone, beside their own tensors."""
    return frozenset(
        entry.path.rpartition(".")[0]
        for recording in recordings
        for entry, readers in zip(recording.entries, recording.readers, strict=True)
        if isinstance(entry, Held) and entry.path.endswith(".weight") and _are_one_layer(recording, readers)
    )


def readers_by_path(recordings: Iterable[Recording]) -> dict[str, frozenset[str | None]]:
    """Return the names of the functions that read each held tensor, by its path; None is the model's return."""
    found: dict[str, frozenset[str | None]] = {}
    for recording in recordings:
        for entry, readers in zip(recording.entries, recording.readers, strict=True):
            if isinstance(entry, Held):
                names = frozenset(None if reader is None else reader.name for reader in readers)
                found[entry.path] = found.get(entry.path, frozenset()) | names
    return found


def _are_one_layer(recording: Recording, readers: tuple[Entry | None, ...]) -> bool:
    """Tell whether a tensor's readers all call one function of `PROMOTED`, each on the tensors of one module."""
    calls = [reader for reader in readers if reader is not None and reader.name in PROMOTED]
    if len(calls) < len(readers) or len({call.name for call in calls}) != 1:
        return False
    return all(_reads_one_module(recording, call) for call in calls)


def _reads_one_module(recording: Recording, call: Entry) -> bool:
    """Tell whether all tensors but the first are held by one module; torch's group norm has no scale alone."""
    first = leaves(call.args[:1])
    others = [recording.entries[operand] for operand in call.operands if Ref(operand) not in first]
    held = [entry for entry in others if isinstance(entry, Held)]
    owners = {entry.path.rpartition(".")[0] for entry in held}
    complete = len(others) > 1 or call.name != "group_norm"
    return complete and len(owners) == 1 and len(held) == len(others)


def promote(
    call: Call, input: Value, tensors: Mapping[str, Value | None], make: Callable[[], nn.Module], kind: str
) -> Value | None:
    """Emit ``make()`` holding the given tensors, or return None where they are not one module's own.

    Args:
        call: The function call.
        input: The tensor that the module is called on.
        tensors: The module's tensors by attribute name; None where absent.
        make: Builds the module on the meta device.
        kind: Name of the function, which all other uses of the tensors must share.
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
    """Return the path of the module that holds every tensor under its own name, or None."""
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
