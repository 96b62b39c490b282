"""Pairs of frames of a set asked of the matching network: each in both orders, streamed as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..sparse.views import SymmetricPair, View
from .host_pairs import no_numbers
from .mast3r import MatchingViews
from .predict import FramePredictor


class ViewPredictor(FramePredictor[MatchingViews]):
    """What a matching network says of unordered pairs of frames; the network's side of `sparse.views.ViewSource`.

    `total_pairs` counts unordered pairs, `pairs_at_once` those of one order. A pair is done when the next is asked for.
    """

    def predict(self, pairs: Iterable[tuple[int, int]]) -> Iterator[SymmetricPair]:
        """The answers to pairs of frames i < j, each once, on the device and float32, neighbours after each other.

        Frames that an earlier call encoded are not encoded again while they are in the cache. Several pairs' views lie
        in one piece of memory, which is free only when none is referred to: copy what you keep. Raises UserError when
        memory does not suffice or the network gives no numbers, IndexError for frames that are not there, ValueError
        for a pair that is not i < j, Cancelled.
        """
        pairs = sorted({(int(i), int(j)) for i, j in pairs}, key=self._place)
        if wrong := [pair for pair in pairs if not pair[0] < pair[1]]:
            raise ValueError(f"pairs must be i < j, not {wrong[0]}")
        directed = [order for i, j in pairs for order in ((i, j), (j, i))]
        forth: list[tuple[View, View]] = []  # at most one, whose other order is in the next chunk
        whole: list[SymmetricPair] = []

        def take(chunk: Sequence[int], maps: MatchingViews) -> None:
            if not all(getattr(maps, name).isfinite().all() for name in maps.__dataclass_fields__):
                raise no_numbers(*directed[chunk[0]])
            for n, place in enumerate(chunk):
                views = _views(maps, n)
                if place % 2 == 0:
                    forth.append(views)
                else:
                    (ii, ji), (jj, ij) = forth.pop(), views
                    j, i = directed[place]
                    whole.append(SymmetricPair(i, j, ii, ji, jj, ij))

        done = 0
        for _ in self._answers(directed, take):
            while whole:
                yield whole.pop(0)
                done += 1
                self._tell(done, len(pairs))

    def tokens(self, frames: Sequence[int]) -> Iterator[Tensor]:
        """What the encoder makes of each of `frames`, (T, C) float32 on the device: by them, frames are alike or not.

        They are kept for the pairs, as many as the cache holds. Raises what `predict` does.
        """
        for done, frame in enumerate(frames):
            if not 0 <= frame < len(self.images):
                raise IndexError(f"frames 0 to {len(self.images) - 1} only")
            with torch.no_grad():
                found = self._tokens_of([frame], frames[done + 1 :])[frame].to(self.device, torch.float32)
            if not found.isfinite().all():
                raise no_numbers(frame, frame)
            yield found
            self.run.progress((done + 1) / len(frames))

    def _place(self, pair: tuple[int, int]) -> tuple[int, ...]:
        """Where a pair comes: by blocks of frames that the caches hold together, so that each is made few times."""
        held = min(self._tokens.capacity, self._shallow.capacity // 2 or self._tokens.capacity)
        block = max(1, held // 2)
        return pair[0] // block, pair[1] // block, *pair


def _views(maps: MatchingViews, n: int) -> tuple[View, View]:
    """Both views of the n-th pair of an answer."""
    one = View(maps.pts3d_1[n], maps.conf_1[n], maps.desc_1[n], maps.desc_conf_1[n])
    return one, View(maps.pts3d_2[n], maps.conf_2[n], maps.desc_2[n], maps.desc_conf_2[n])
