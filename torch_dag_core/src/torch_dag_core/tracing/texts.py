"""Whether the text of a size is part of a message, which decides nothing, or is used for something else.

Assertions of torch make their message even where they hold: ``torch._assert(h == 8, f"the height is {h}")``. But
``branches[str(h)]`` depends on the size. The code that runs next tells them apart: the text, or what is made of it, is
either raised or thrown away in the end, or it is compared, stored, returned or used as a key.
"""

from __future__ import annotations

import dis
import functools
import sys
from types import CodeType, FrameType

from torch_dag_core.tracing.reachable import is_library

_ENDS_OF_MESSAGES = frozenset({"POP_TOP", "RAISE_VARARGS"})
_MAKES_TEXT = (
    "FORMAT_", "BUILD_STRING", "BUILD_TUPLE", "BINARY_OP", "PRECALL", "CALL", "KW_NAMES", "CACHE", "LOAD_", "PUSH_",
    "COPY", "SWAP", "RESUME", "NOP", "EXTENDED_ARG", "CONVERT_VALUE", "DICT_MERGE", "LIST_EXTEND", "BUILD_LIST",
    "LIST_TO_TUPLE", "TO_BOOL", "NOT_TAKEN",
)  # fmt: skip
"""How the names of instructions begin that leave the text, what is made of it, or the result of a call with it."""


def is_message() -> bool:
    """Tell whether the code that asks for a text, two calls up, makes a message of it; libraries do nothing else."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("torch_dag_core."):
        frame = frame.f_back
    if frame is None or is_library(frame.f_globals.get("__name__")):
        return True
    return _ends_as_message(frame.f_code, frame.f_lasti)


@functools.lru_cache(maxsize=1024)
def _ends_as_message(code: CodeType, place: int) -> bool:
    """Follow the value that the instruction at ``place`` leaves on the stack until something takes it for good."""
    above = 0
    for step in dis.get_instructions(code):
        if step.offset <= place:
            continue
        above += dis.stack_effect(step.opcode, step.arg, jump=False)
        if above > 0:  # the instruction is about other values
            continue
        above = 0
        if not step.opname.startswith(_MAKES_TEXT):
            return step.opname in _ENDS_OF_MESSAGES
    return False
