"""Function calls on a module's own parameters become that module again.

``F.linear(x, self.fc.weight, self.fc.bias)`` is `nn.Linear` under the name ``fc``, so that one layer has one
spelling and checkpoints keep their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import fx, nn

from torch_dag_core.conversion.builder import Call, Value

PROMOTED = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "layer_norm", "rms_norm", "group_norm", "batch_norm", "prelu",
})  # fmt: skip
"""Functions whose calls may become modules."""


def possible_owners(nodes: Iterable[fx.Node]) -> frozenset[str]:
    """Return the paths of modules whose ``weight`` is read by such functions alone, beside their own tensors."""
    return frozenset(
        str(node.target).rpartition(".")[0]
        for node in nodes
        if node.op == "get_attr"
        and str(node.target).endswith(".weight")
        and len({user.meta.get("function") for user in node.users}) == 1
        and all(user.meta.get("function") in PROMOTED and _reads_one_module(user) for user in node.users)
    )


def _reads_one_module(call: fx.Node) -> bool:
    """Tell whether all tensors but the first are held by one module; torch's group norm has no scale alone."""
    held = [node for node in call.all_input_nodes if node is not call.args[0]]
    owners = {str(node.target).rpartition(".")[0] for node in held}
    complete = len(held) > 1 or call.meta.get("function") != "group_norm"
    return complete and len(owners) == 1 and all(node.op == "get_attr" for node in held)


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
                _set_tensor(module, name, call.builder.copy_of(value.tensor))
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
    return all(node.meta["function"] == kind for node in value.readers)


def _set_tensor(module: nn.Module, name: str, tensor: Any) -> None:
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)
