"""How many bytes of tensors are alive at once while something runs, whatever the allocator keeps."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts the tensors made inside `with LiveTensors() as live`: `live.peak` in bytes. It slows things down."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, list[int]] = {}  # address: [tensors that share it, bytes]

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if not isinstance(tensor, torch.Tensor):
                continue
            address = _address(tensor)
            if address in given and address not in self._storages:
                continue  # a view of something from outside
            if address not in self._storages:
                self._storages[address] = [0, tensor.untyped_storage().nbytes()]
                self.now += self._storages[address][1]
                self.peak = max(self.peak, self.now)
            self._storages[address][0] += 1
            weakref.finalize(tensor, self._dropped, address)
        return result

    def _dropped(self, address: int) -> None:
        entry = self._storages.get(address)
        if entry is None:
            return
        entry[0] -= 1
        if entry[0] == 0:
            self.now -= entry[1]
            del self._storages[address]


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
