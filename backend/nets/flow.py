"""Optical flow between any two frames of a clip, whatever computes it: one small face, and the check of both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ..align.predictions import PairFlows
from ..classical.flow import flow_method
from ..classical.parallel import in_threads
from ..run import Run
from .memory import Chunks

Pair = tuple[int, int]

#: Forward and backward flow agree when |f + b|^2 < share (|f|^2 + |b|^2) + slack (Sundaram, Brox and Keutzer 2010).
_AGREEMENT_SHARE, _AGREEMENT_SLACK = 0.01, 0.5


class FlowPredictor(ABC):
    """Optical flow of pairs of frames (T, H, W, 3) uint8 of one clip; `predict` is all that its users know.

    With `both_ways` (the default) a pair whose reverse is not asked for is computed backwards too, for its validity;
    without, such a pair's validity only says whether the flow stays in the picture.
    """

    def __init__(self, images: np.ndarray, run: Run, both_ways: bool, chunks: Chunks):
        self._images, self._run, self._both_ways = images, run, both_ways
        self._chunks = chunks  # of couples of frames, each with one or both directions

    def predict(self, edges: torch.Tensor | Sequence[Pair]) -> PairFlows:
        """Flows of E directed pairs (i, j), on the host, flow in half precision.

        Each direction is computed once, however often and in whatever order it is asked for. Reports progress of the
        running stage. Raises Cancelled, and UserError when the device has too little memory for one pair.
        """
        edges = torch.as_tensor(edges, dtype=torch.int64).reshape(-1, 2).cpu()
        height, width = self._images.shape[1:3]
        if len(edges) and not (edges.min() >= 0 and edges.max() < len(self._images)):
            raise ValueError(f"edges name frames outside 0..{len(self._images) - 1}")
        flow = torch.empty(len(edges), 2, height, width, dtype=torch.float16)
        valid = torch.empty(len(edges), height, width, dtype=torch.bool)
        rows: dict[Pair, list[int]] = {}
        for row, (i, j) in enumerate(edges.tolist()):
            rows.setdefault((i, j), []).append(row)
        couples = sorted({(min(pair), max(pair)) for pair in rows})
        self._run.progress(0)
        for done in self._chunks.over(couples, lambda chunk: self._fill(chunk, rows, flow, valid)):
            self._run.progress(done / len(couples))
        return PairFlows(edges=edges, flow=flow, valid=valid)

    @torch.inference_mode()
    def _fill(
        self, couples: Sequence[Pair], rows: dict[Pair, list[int]], flow: torch.Tensor, valid: torch.Tensor
    ) -> None:
        """Write the rows of all pairs that join these couples of frames."""
        directed = [d for a, b in couples for d in dict.fromkeys([(a, b), (b, a)]) if self._both_ways or d in rows]
        place = {pair: k for k, pair in enumerate(directed)}
        flows = self._flows(directed)
        known = torch.tensor([pair[::-1] in place for pair in directed], device=flows.device)
        back = flows[[place.get(pair[::-1], 0) for pair in directed]]
        sound = stays_inside(flows) & (flows_agree(flows, back) | ~known[:, None, None])
        halves, sound = torch.nan_to_num(flows, posinf=0, neginf=0).clamp(-6e4, 6e4).half().cpu(), sound.cpu()
        for pair in directed:
            for row in rows.get(pair, ()):
                flow[row], valid[row] = halves[place[pair]], sound[place[pair]]

    @abstractmethod
    def _flows(self, pairs: list[Pair]) -> torch.Tensor:
        """(n, 2, H, W) float32 on any device: dx, dy in pixels from the first frame of each pair to the second."""


class ClassicalFlow(FlowPredictor):
    """The classical engine's flow (DIS, Kroeger et al. 2016) with the same face, for machines without RAFT's weights.

    It follows large motion and blur less well; whoever chooses it says so in the capture.
    """

    def __init__(self, images: np.ndarray, run: Run, *, both_ways: bool = True):
        super().__init__(images, run, both_ways, Chunks(run.workers, "cpu", "couple of frames", run=run))

    def _flows(self, pairs: list[Pair]) -> torch.Tensor:
        grey = {t: cv2.cvtColor(np.asarray(self._images[t]), cv2.COLOR_RGB2GRAY) for t in {t for p in pairs for t in p}}
        quiet = Run(is_cancelled=self._run.is_cancelled, threads=self._run.threads)

        def flow(k: int) -> np.ndarray:
            i, j = pairs[k]
            return flow_method().calc(grey[i], grey[j], None)

        return torch.from_numpy(np.stack(list(in_threads(flow, len(pairs), quiet)))).permute(0, 3, 1, 2)


def flows_agree(flow: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """(n, H, W) bool: does `back` (n, 2, H, W), read where `flow` (n, 2, H, W) ends, lead home again?

    The tolerance grows with the motion: |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5, pixels (Sundaram et al. 2010, eq. 5).
    """
    height, width = flow.shape[-2:]
    size = torch.tensor([width, height], device=flow.device)
    grid = (2 * _targets(flow).movedim(1, -1) + 1) / size - 1
    there = F.grid_sample(back, grid, mode="bilinear", padding_mode="border", align_corners=False)
    missed = (flow + there).square().sum(1)
    return missed < _AGREEMENT_SHARE * (flow.square().sum(1) + there.square().sum(1)) + _AGREEMENT_SLACK


def stays_inside(flow: torch.Tensor) -> torch.Tensor:
    """(n, H, W) bool: does the flow (n, 2, H, W) of a pixel's centre end between the centres of the outermost ones?"""
    height, width = flow.shape[-2:]
    x, y = _targets(flow).unbind(1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _targets(flow: torch.Tensor) -> torch.Tensor:
    """(n, 2, H, W) column and row (counted from the first pixel's centre) where the flow of each pixel ends."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return flow + torch.stack([x, y]).to(flow)
