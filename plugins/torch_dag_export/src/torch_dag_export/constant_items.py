"""Numbers that a program reads from tensors that never change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram


def write_items_out(program: ExportedProgram) -> None:
    """Replace each floating-point number that a program reads from an unchanged buffer by its value, in place.

    A size in a tensor that fills another one, as strides in detectors, is otherwise a number that is known only when
    the program runs, which compilers for devices refuse.
    """
    held = _constants(program)
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.item.default):
        tensor = held.get(node.args[0].name)
        if tensor is None or not tensor.is_floating_point():
            continue
        number = tensor.item()
        for user in tuple(node.users):
            _give(user, node, number)
        program.graph.erase_node(node)
    program.graph_module.recompile()


def _give(user: fx.Node, node: fx.Node, number: float) -> None:
    def value(each: fx.Node) -> Any:
        return number if each is node else each

    user.args, user.kwargs = fx.map_arg(user.args, value), fx.map_arg(user.kwargs, value)


def _constants(program: ExportedProgram) -> dict[str, Tensor]:
    """Return the buffers and constants that a program does not write, by the names of their placeholders."""
    signature = program.graph_signature
    names = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    written = set(signature.buffers_to_mutate.values())
    values: dict[str, Any] = {**program.constants, **program.state_dict}
    return {place: values[name] for place, name in names.items() if name not in written and name in values}
