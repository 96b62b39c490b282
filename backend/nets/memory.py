"""Memory of a device: how much is free, how large a chunk of work may be, and going on when it was too much."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch

from ..ladder import NoRoom, whose_memory
from ..machine import memory_free
from ..run import Run

#: Share of the free memory that a chunk may be planned to take; the rest is for what the estimate does not know.
_PLANNED = 0.7


def free_bytes(device: torch.device | str) -> int:
    """Bytes that can still be allocated on a device; for the CPU, the memory that is available without swapping."""
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return memory_free()


def chunk_size(free: int, bytes_each: int, most: int) -> int:
    """How many items of `bytes_each` to work on at once with `free` bytes: 1 to `most`."""
    return max(1, min(most, int(_PLANNED * free) // max(bytes_each, 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in whichever of the ways torch has."""
    return isinstance(error, RuntimeError) and whose_memory(error) != ""


def release(device: torch.device | str) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


class Chunks:
    """Work in chunks that survives running out of memory, by halving the chunk.

    `relieve` lets go of what can be made again and says whether there was any. `what` names an item in messages. Each
    step down is told by `run.retry`; what fitted is kept in `run.ladder`, where a later job finds it for items that are
    as large as these: `item` says how large in words.
    """

    def __init__(
        self,
        size: int,
        device: torch.device | str,
        what: str,
        relieve: Callable[[], bool] = lambda: False,
        run: Run | None = None,
        item: str = "",
    ) -> None:
        self.device, self.what, self.relieve, self.run = torch.device(device), what, relieve, run or Run()
        self._free = free_bytes(self.device)
        self._place = f"{_name(self.device)}: {what}, {item}"
        self._lowered = False
        ladder = self.run.ladder
        self.size = ladder.begin(self._place, size, self._free) if ladder and item else size
        self._keep = ladder.keep if ladder and item else lambda *_: None

    def over(self, items: Sequence, work: Callable[[Sequence], None]) -> Iterator[int]:
        """Call `work` on chunks of `items` in turn; yields how many items are done after each.

        `work` must leave nothing half done when it runs out of memory: it is called again with fewer items. Raises
        NoRoom when one item is too much.
        """
        done = 0
        while done < len(items):
            chunk = items[done : done + self.size]
            if self._fits(work, chunk):
                if self._lowered:
                    self._keep(self._place, self.size, self._free)
                    self._lowered = False
                done += len(chunk)
                yield done
                continue
            # Only here, out of the except clause: until then the error's traceback keeps the tensors alive.
            relieved = self.relieve()
            release(self.device)
            if len(chunk) > 1:
                self.size, self._lowered = len(chunk) // 2, True
                self.run.retry(f"Out of memory with {len(chunk)} {self.what}s at once; going on with {self.size}")
            elif relieved:
                self.run.retry(f"Out of memory with one {self.what}; going on without kept results")
            else:
                raise NoRoom(
                    f"The memory of {_name(self.device)} is not enough for one {self.what} at this size",
                    "lower Resolution, or close other programs that use this memory",
                )

    @staticmethod
    def _fits(work: Callable[[Sequence], None], chunk: Sequence) -> bool:
        try:
            work(chunk)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
