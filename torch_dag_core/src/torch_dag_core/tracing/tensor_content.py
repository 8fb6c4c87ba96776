"""A copy of the memory of a tensor, which can be put back whatever the layout of the tensor is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_dag_core.tracing.tensors import storage_of

_CHEAP_BYTES = 1 << 24
_PLAIN = (Tensor, nn.Parameter)


class Content:
    """A copy of the storage under a tensor, with the tensor's own place in it.

    Bytes are copied back below the level of tensors, because a tensor that is expanded, overlaps itself or was made in
    inference mode cannot be written to. Tensors without a storage (sparse ones) are copied as tensors.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._is_plain = type(tensor) in _PLAIN and tensor.layout is torch.strided
        self._requires_grad = tensor.requires_grad
        if self._is_plain:
            self._storage = tensor.untyped_storage()
            self._bytes: torch.UntypedStorage = self._storage.clone()  # type: ignore[no-untyped-call]
            self._place = (tensor.storage_offset(), tensor.size(), tensor.stride())
        else:
            self._copy = tensor.detach().clone()

    @staticmethod
    def is_cheap(tensor: Tensor) -> bool:
        """Tell whether a tensor is small, and not a parameter, which a trace does not write to."""
        if tensor.is_meta or isinstance(tensor, nn.Parameter) or tensor.layout is not torch.strided:
            return False
        return type(tensor) in _PLAIN and tensor.untyped_storage().nbytes() <= _CHEAP_BYTES

    def differs(self) -> bool:
        """Tell whether the memory has other content than when it was copied."""
        if not self._is_plain:
            return True
        same_size = self._storage.nbytes() == self._bytes.nbytes()
        return not (same_size and torch.equal(_as_bytes(self._storage), _as_bytes(self._bytes)))

    def put_back(self) -> None:
        """Write the copy back where anything changed."""
        tensor = self._tensor
        with torch.no_grad():
            if not self._is_plain:
                tensor.copy_(self._copy)
                return
            if self._storage.nbytes() != self._bytes.nbytes():
                self._storage.resize_(self._bytes.nbytes())
            if self.differs():
                self._storage.copy_(self._bytes)
            if (tensor.storage_offset(), tensor.size(), tensor.stride()) != self._place or (
                storage_of(tensor) != self._storage._cdata
            ):
                tensor.set_(self._storage, *self._place)
        if tensor.is_leaf and tensor.requires_grad != self._requires_grad:
            tensor.requires_grad_(self._requires_grad)


def _as_bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
