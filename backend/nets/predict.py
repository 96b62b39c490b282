"""Pairs of frames asked of a two-view network: each frame encoded once, in chunks that fit the memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..align.predictions import PairPredictions
from ..run import Run
from .host_pairs import HostPairs
from .memory import Chunks, chunk_size, free_bytes
from .pairwise import Encoded, PairwiseNet, Pointmaps
from .precision import Precision

Maps = TypeVar("Maps", bound=Pointmaps)

#: More at once does not make a device faster.
MOST_AT_ONCE = {"cuda": 16, "cpu": 2}
#: Shares of the free memory for tokens, and for the heads' maps of single frames, that wait for their next pair.
_TOKEN_SHARE, _SHALLOW_SHARE = 0.125, 0.25
#: Bytes of such maps that are enough: those of a hundred frames at 512 x 288, in float32.
_SHALLOW_MOST = 2 * 2**30
#: Fewer maps of single frames than this do not outlast a frame's pairs, so then none are kept.
LEAST_KEPT = 16


class FramePredictor(Generic[Maps]):
    """A network asked about pairs of frames of a clip; what comes of its answers is for derived classes to say.

    `images` (T, H, W, 3) uint8 RGB, anything that indexes like an array and need not be in memory. The network is moved
    to `device` and brought to `precision`. Progress goes to `run` as the share of `total_pairs` (by default those of
    each call), and so does the question whether to stop. `pairs_at_once` limits the chunks; 0 goes by the memory.
    """

    def __init__(
        self,
        network: PairwiseNet,
        images: np.ndarray,
        device: torch.device | str,
        precision: Precision,
        run: Run,
        total_pairs: int | None = None,
        pairs_at_once: int = 0,
    ) -> None:
        self.device, self.run, self.images = torch.device(device), run, images
        self.network = network.calculating(precision).to(self.device)
        count, self.height, self.width = images.shape[:3]
        self.grid = network.config.grid(self.height, self.width)
        self.total_pairs, self._done = total_pairs, 0

        needs = network.memory_needs(self.height, self.width)
        free, most = free_bytes(self.device), MOST_AT_ONCE.get(self.device.type, 4)
        on_device = count * needs.tokens <= _TOKEN_SHARE * free
        self._token_home = self.device if on_device else torch.device("cpu")
        self._tokens = FrameCache(max(32, int(_TOKEN_SHARE * free_bytes(self._token_home) / needs.tokens)))
        room = int(min(_SHALLOW_SHARE * free, _SHALLOW_MOST) / needs.shallow) if needs.shallow else 0
        self._shallow = FrameCache(room if room >= LEAST_KEPT else 0)
        free = int(free * (1 - _TOKEN_SHARE - _SHALLOW_SHARE))
        drop = self._shallow.drop

        def chunks(what: str, bytes_each: int, most: int) -> Chunks:
            item = f"{self.width}x{self.height}, {bytes_each >> 20} MiB"
            return Chunks(chunk_size(free, bytes_each, most), self.device, what, drop, run, item)

        self._encode_chunks = chunks("frame", needs.encode, most)
        self._pair_chunks = chunks("pair", needs.pair, pairs_at_once or most)

    def _answers(self, pairs: Sequence[tuple[int, int]], take: Callable[[Sequence[int], Maps], None]) -> Iterator[int]:
        """Ask about directed pairs of frames in their order, a chunk at a time; yields how many are done.

        `take` gets the chunk's places in `pairs`, and the network's answer on the device. Raises UserError when memory
        does not suffice, IndexError for frames that are not there, Cancelled.
        """
        if any(not 0 <= f < len(self.images) for pair in pairs for f in pair):
            raise IndexError(f"pairs of frames 0 to {len(self.images) - 1} only")

        def work(chunk: Sequence[int]) -> None:
            self.run.check()
            with torch.no_grad():
                take(chunk, self._pairs([pairs[n] for n in chunk], chain.from_iterable(pairs[chunk[-1] + 1 :])))

        yield from self._pair_chunks.over(range(len(pairs)), work)

    def _tell(self, done: int, asked: int) -> None:
        """Progress: `done` of the `asked` pairs of a call."""
        before, total = (self._done, self.total_pairs) if self.total_pairs else (0, asked)
        self.run.progress(min(1.0, (before + done) / total))
        if done == asked:
            self._done += asked

    def _pairs(self, pairs: Sequence[tuple[int, int]], later: Iterable[int]) -> Maps:
        """The network's answer on the device to pairs of frames; `later` are the frames after these."""
        tokens = self._tokens_of(dict.fromkeys(f for pair in pairs for f in pair), later)
        views = []
        for view, frames in ((1, [i for i, _ in pairs]), (2, [j for _, j in pairs])):
            stacked = torch.stack([tokens[f] for f in frames]).to(self.device, torch.float32, non_blocking=True)
            views.append(Encoded(stacked, self.grid, self._shallow_of(view, frames, stacked)))
        return self.network.pair(*views)

    def _tokens_of(self, frames: Iterable[int], later: Iterable[int]) -> dict[int, Tensor]:
        """Tokens (T, C) of frames. Where some must be encoded, frames of `later` fill the chunk up."""
        tokens = {f: self._tokens.get(f) for f in frames}
        missing = [f for f, kept in tokens.items() if kept is None]

        def encode(chunk: Sequence[int]) -> None:
            self.run.check()
            made = self.network.encode(network_input(np.stack([self.images[f] for f in chunk]), self.device))
            for frame, row in zip(chunk, made.to(self._token_home, self.network.precision.tokens)):
                self._tokens.put(frame, row.clone())
                if frame in tokens:
                    tokens[frame] = row

        if missing:
            upcoming = [f for f in dict.fromkeys(later) if f not in tokens and f not in self._tokens]
            fill = min(-len(missing) % self._encode_chunks.size, self._tokens.capacity // 4)
            for _ in self._encode_chunks.over(missing + upcoming[:fill], encode):
                pass
        return tokens

    def _shallow_of(self, view: int, frames: list[int], tokens: Tensor) -> Tensor | None:
        """What the view's head makes of frames alone, kept or new; None where nothing is kept."""
        if not self._shallow.capacity:
            return None
        maps = {f: self._shallow.get((view, f)) for f in frames}
        missing = [f for f, kept in maps.items() if kept is None]
        if missing:
            made = self.network.shallow(view, tokens[[frames.index(f) for f in missing]], self.grid)
            for frame, kept in zip(missing, made):
                maps[frame] = kept
                self._shallow.put((view, frame), kept.clone())
        return torch.stack([maps[f] for f in frames])


class PairPredictor(FramePredictor[Pointmaps]):
    """Predictions of a two-view network for directed pairs of frames of a clip."""

    def predict(self, edges: Iterable[Sequence[int]]) -> PairPredictions:
        """Predictions of directed pairs (i, j) of frames, in their order, on the host in half precision.

        Points and confidence beyond the range of half precision are brought to its ends. Frames that an earlier call
        encoded are not encoded again while they are in the cache. Raises UserError when memory does not suffice or the
        network gives no numbers, IndexError for frames that are not there, Cancelled.
        """
        edges = torch.as_tensor(np.asarray(edges, np.int64).reshape(-1, 2))
        host = HostPairs(edges, self.height, self.width)
        # Neighbours after each other, so that few frames are needed at a time and both orders are together.
        pairs = [(i, j) for i, j in edges.tolist()]
        order = sorted(range(len(pairs)), key=lambda e: (sorted(pairs[e]), pairs[e]))

        def keep(chunk: Sequence[int], maps: Pointmaps) -> None:
            host.put([order[n] for n in chunk], maps)

        with torch.inference_mode():
            for done in self._answers([pairs[e] for e in order], keep):
                self._tell(done, len(pairs))
        return host.finished()


def network_input(frames: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(B, 3, H, W) float32 in -1..1 on a device, of (B, H, W, 3) uint8 RGB pictures."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return (pictures.float() / 255 - 0.5).div_(0.5).movedim(-1, 1).contiguous()


class FrameCache:
    """The tensors used last, at most `capacity` of them, by a key."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> Tensor | None:
        """What is kept, which now counts as used last; None if it is not there."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor, and let go of the one whose use is longest ago if there is no room."""
        self._kept[key] = tensor
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def drop(self) -> bool:
        """Let go of everything, and from now on keep half as much as there was; whether there was anything."""
        there = len(self._kept)
        self._kept.clear()
        self.capacity = min(self.capacity, there // 2) if there // 2 >= LEAST_KEPT else 0
        return there > 0
