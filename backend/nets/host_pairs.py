"""Pair predictions on the host in half precision, filled while the device goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..align.predictions import PairPredictions
from ..ladder import NoRoom
from ..wire import UserError
from .memory import free_bytes
from .pairwise import Pointmaps

_HALF_MAX = torch.finfo(torch.float16).max


class HostPairs:
    """Predictions on the host, filled chunk by chunk; from a GPU without waiting for the copy."""

    #: Copies under way at once; two let the next chunk be calculated while the last one travels.
    UNDER_WAY = 2

    def __init__(self, edges: Tensor, height: int, width: int) -> None:
        count, free = len(edges), free_bytes("cpu")
        needed = count * height * width * 2 * (3 + 1) * 2  # two maps of points and confidence, two bytes a number
        if needed > free:
            raise NoRoom(
                f"{count} pairs need {needed / 2**30:.1f} GiB of this machine's memory and {free / 2**30:.1f} are free",
                "lower Resolution, use fewer frames, or compare each with fewer neighbours",
            )
        shapes = ((count, height, width, 3), (count, height, width))
        points_i, points_j = (torch.empty(shapes[0], dtype=torch.float16) for _ in range(2))
        confidence_i, confidence_j = (torch.empty(shapes[1], dtype=torch.float16) for _ in range(2))
        self._result = PairPredictions(edges, points_i, points_j, confidence_i, confidence_j)
        self._under_way: deque[tuple[torch.cuda.Event, list[int], list[Tensor]]] = deque()

    def put(self, rows: Sequence[int], maps: Pointmaps) -> None:
        """Rows of the edges, and what the network says of them."""
        halves = [points.clamp(-_HALF_MAX, _HALF_MAX).half() for points in (maps.pts3d_1, maps.pts3d_2)]
        halves += [confidence.clamp(1, _HALF_MAX).half() for confidence in (maps.conf_1, maps.conf_2)]
        if halves[0].device.type != "cuda":
            self._store(list(rows), [half.cpu() for half in halves])
            return
        staged = [torch.empty(half.shape, dtype=half.dtype, pin_memory=True) for half in halves]
        for target, half in zip(staged, halves):
            target.copy_(half, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(halves[0].device))
        self._under_way.append((arrived, list(rows), staged))
        self._land(self.UNDER_WAY)

    def finished(self) -> PairPredictions:
        """All predictions, once every copy has arrived."""
        self._land(0)
        return self._result

    def _land(self, still_under_way: int) -> None:
        while len(self._under_way) > still_under_way:
            arrived, rows, staged = self._under_way.popleft()
            arrived.synchronize()
            self._store(rows, staged)

    def _store(self, rows: list[int], staged: list[Tensor]) -> None:
        if any(part.isnan().any() for part in staged):
            raise no_numbers(*self._result.edges[rows[0]].tolist())
        result = self._result
        targets = (result.points_i, result.points_j, result.confidence_i, result.confidence_j)
        for target, part in zip(targets, staged):
            target[rows] = part


def no_numbers(i: int, j: int) -> UserError:
    """What to raise where the network's answer to frames about i and j is not made of numbers."""
    return UserError(
        f"The network gave no numbers for a pair of frames near {i} and {j}",
        "choose full precision, or download the weights again",
    )
