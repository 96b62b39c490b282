"""Optical flow by RAFT (Teed and Deng 2020) of torchvision: each frame encoded once, each direction refined once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..run import Run
from .checkpoint import load_strictly, read_checkpoint
from .flow import FlowPredictor, Pair
from .memory import Chunks, chunk_size, free_bytes

if TYPE_CHECKING:
    from torchvision.models.optical_flow import RAFT

#: RAFT works on cells of 8 x 8 pixels, halves its features three more times and needs two of the last.
_CELL, _LEAST_SIDE = 8, 128
#: More couples of frames at once than this make no GPU faster; a processor gains nothing by more than one.
_MOST_AT_ONCE = 16


class RaftFlow(FlowPredictor):
    """RAFT (Teed and Deng 2020) as torchvision has it, each frame encoded once and each direction refined once.

    `updates` is the number of refinements; `precision` float16 or bfloat16 runs the networks in it, while correlation
    and coordinates stay float32. Encoded frames are kept on the device up to `cache_bytes`, so that
    later calls with the same frames (windows of a clip) find them. Pictures are padded evenly by their edges to
    multiples of 8; a picture with a side below 128 pixels, RAFT's least, is first enlarged until it has that.
    """

    def __init__(
        self,
        images: np.ndarray,
        model: RAFT,
        run: Run,
        *,
        updates: int = 12,
        precision: torch.dtype = torch.float32,
        both_ways: bool = True,
        couples_at_once: int = 0,
        cache_bytes: int = 1 << 30,
    ):
        frame = _Frame(*images.shape[1:3])
        most = _MOST_AT_ONCE if torch.device(run.device).type == "cuda" else 1
        couples_at_once = couples_at_once or chunk_size(free_bytes(run.device), 2 * frame.bytes_of_a_pair, most)
        item = f"{images.shape[2]}x{images.shape[1]}, {frame.bytes_of_a_pair >> 20} MiB"
        chunks = Chunks(couples_at_once, run.device, "couple of frames", self._forget, run, item)
        super().__init__(images, run, both_ways, chunks)
        self._device = torch.device(run.device)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._updates, self._precision, self._frame = updates, precision, frame
        self._encoded: OrderedDict[int, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._cache_bytes = cache_bytes

    def _forget(self) -> bool:
        """Let go of the encoded frames; False if there were none but those of the couple at hand."""
        held = len(self._encoded)
        self._encoded.clear()
        return held > 2

    def _flows(self, pairs: list[Pair]) -> torch.Tensor:
        if len(pairs) == 2:  # one couple: its two ways one after the other take half the memory
            return torch.cat([self._refine([pair]) for pair in pairs])
        return self._refine(pairs)

    def _refine(self, pairs: list[Pair]) -> torch.Tensor:
        encoded = self._encode(dict.fromkeys(frame for pair in pairs for frame in pair))
        source = torch.stack([encoded[i][0] for i, _ in pairs]).float()
        target = torch.stack([encoded[j][0] for _, j in pairs]).float()
        split = self._model.update_block.hidden_state_size
        state, context = torch.stack([encoded[i][1] for i, _ in pairs]).tensor_split([split], dim=1)
        state, context = torch.tanh(state), torch.relu(context)
        correlation = self._model.corr_block
        rows, columns = source.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        start = torch.stack([x, y]).to(self._device, torch.float32).expand(len(pairs), 2, rows, columns)
        reached = start
        try:
            correlation.build_pyramid(source, target)
            for _ in range(self._updates):
                seen = correlation.index_pyramid(centroids_coords=reached)
                with self._half():
                    state, step = self._model.update_block(state, context, seen, reached - start)
                reached = reached + step.float()
        finally:
            correlation.corr_pyramid = []  # the model would keep it until the next pair
        weights = None
        if self._model.mask_predictor is not None:
            with self._half():
                weights = self._model.mask_predictor(state)
        return self._frame.to_picture(_upsample(reached - start, weights))

    def _encode(self, frames: Iterable[int]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Matching features and context of each frame, from the cache where it has them."""
        wanted = list(frames)
        missing = [frame for frame in wanted if frame not in self._encoded]
        for chunk in (missing[k : k + self._chunks.size] for k in range(0, len(missing), self._chunks.size)):
            pictures = np.stack([np.asarray(self._images[frame]) for frame in chunk])
            pictures = self._frame.from_picture(torch.from_numpy(pictures).to(self._device))
            with self._half():
                both = zip(self._model.feature_encoder(pictures), self._model.context_encoder(pictures))
            # Copies: a view would keep the memory of its whole batch.
            self._encoded.update({frame: (a.clone(), b.clone()) for frame, (a, b) in zip(chunk, both)})
        found = {frame: self._encoded[frame] for frame in wanted}
        for frame in wanted:
            self._encoded.move_to_end(frame)
        size = sum(t.nbytes for t in next(iter(found.values())))
        while len(self._encoded) > max(1, self._cache_bytes // size):
            self._encoded.popitem(last=False)
        return found

    def _half(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)


def load_flow(weights: Path | None = None, model: str = "large", device: str = "cpu") -> RAFT:
    """RAFT 'large' or 'small' with the weights of a file, by default those that the project's list names.

    Raises UserError when the file is missing, damaged or of another network.
    """
    if weights is None:
        from .weights import find_weights

        weights = find_weights(f"raft_{model}")
    network = new_raft(model)
    load_strictly(network, read_checkpoint(weights))
    return network.to(device)


def new_raft(model: str = "large") -> RAFT:
    """RAFT 'large' (5.3 million weights) or 'small' (1.0 million) with random weights, in evaluation mode."""
    from torchvision.models.optical_flow import raft_large, raft_small

    return {"large": raft_large, "small": raft_small}[model](weights=None).eval()


def _upsample(flow: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """(n, 2, 8h, 8w) flow in pixels from (n, 2, h, w) in cells.

    Each fine pixel is a convex mix of the nine cells around it, `weights` (n, 8 * 8 * 9, h, w) being its logits (Teed
    and Deng 2020, section 3.3); without them it is bilinear with the corners' centres aligned, as in RAFT small.
    """
    n, _, rows, columns = flow.shape
    fine = (rows * _CELL, columns * _CELL)
    if weights is None:
        return _CELL * F.interpolate(flow, size=fine, mode="bilinear", align_corners=True)
    mix = weights.float().view(n, 1, 9, _CELL, _CELL, rows, columns).softmax(dim=2)
    around = F.unfold(_CELL * flow, 3, padding=1).view(n, 2, 9, 1, 1, rows, columns)
    return (mix * around).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2, *fine)


class _Frame:
    """How a picture of (height, width) becomes RAFT's input, and RAFT's flow the picture's."""

    def __init__(self, height: int, width: int):
        enlarged = max(1.0, _LEAST_SIDE / min(height, width))
        self._size = (height, width)
        self._inner = (round(height * enlarged), round(width * enlarged))
        extra = [-side % _CELL for side in self._inner]
        self._before = [e // 2 for e in extra]
        self._after = [e - e // 2 for e in extra]

    @property
    def bytes_of_a_pair(self) -> int:
        """What refining one directed pair takes at its peak, about."""
        padded = [side + -side % _CELL for side in self._inner]
        cells = padded[0] * padded[1] // _CELL**2
        return 10 * cells**2 + 40_000 * cells  # the correlation of all cells; networks, upsampling, full-size flow

    def from_picture(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, H', W') float32 in -1..1 from (n, H, W, 3) uint8."""
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        if self._inner != self._size:
            x = F.interpolate(x, size=self._inner, mode="bilinear", align_corners=False)
        (top, left), (bottom, right) = self._before, self._after
        return F.pad(x, (left, right, top, bottom), mode="replicate")

    def to_picture(self, flow: torch.Tensor) -> torch.Tensor:
        """(n, 2, H, W) in pixels of the picture from (n, 2, H', W') in pixels of the input."""
        (top, left), (height, width) = self._before, self._inner
        flow = flow[..., top : top + height, left : left + width]
        if self._inner == self._size:
            return flow
        scale = torch.tensor([self._size[1] / width, self._size[0] / height], device=flow.device).view(1, 2, 1, 1)
        return scale * F.interpolate(flow, size=self._size, mode="bilinear", align_corners=False)
