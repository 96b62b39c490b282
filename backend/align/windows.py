"""Long clips: windows of frames that share frames, and one solve over all of them, so that memory does not grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .align import Aligned, cameras_of, check_placed
from .normal import Noise
from .sampled import Sampled
from .solve import solve, with_knowns
from .start import State
from .unknowns import NOTHING_KNOWN, Knowns


@dataclass(frozen=True)
class Window:
    """Frames `begin` to `end` (not included), of which it decides `own_begin` to `own_end`.

    `edges` (E, 2) are all pairs within it, in the numbering of the clip; the first `kept` of them are the previous
    window's too, there at `kept_rows`.
    """

    begin: int
    end: int
    own_begin: int
    own_end: int
    edges: torch.Tensor
    kept: int
    kept_rows: torch.Tensor

    @property
    def new_edges(self) -> torch.Tensor:
        """(K, 2) pairs that no earlier window has."""
        return self.edges[self.kept :]


def windows_of(edges: Sequence[tuple[int, int]], frame_count: int, length: int) -> list[Window]:
    """Windows of `length` frames over a clip, and its pairs shared out among them.

    Neighbours overlap by twice the reach of the pairs, so each frame has all of its pairs in the window that decides
    it. Pairs that reach over too much of a window leave one window for all.
    """
    every = torch.as_tensor(np.asarray(edges, np.int64).reshape(-1, 2))
    reach = int((every[:, 1] - every[:, 0]).abs().max())
    overlap = 2 * reach
    if frame_count <= length or 2 * overlap > length:
        everything = torch.zeros(0, dtype=torch.long)
        return [Window(0, frame_count, 0, frame_count, every, 0, everything)]
    starts = [*range(0, frame_count - length, length - overlap), frame_count - length]
    low, high = every.min(dim=1).values, every.max(dim=1).values
    windows: list[Window] = []
    for k, begin in enumerate(starts):
        end = begin + length
        within = (low >= begin) & (high < end)
        kept = within & (high < windows[-1].end) & (low >= windows[-1].begin) if windows else within & False
        order = torch.cat([torch.nonzero(kept)[:, 0], torch.nonzero(within & ~kept)[:, 0]])
        rows = torch.zeros(0, dtype=torch.long)
        if windows:
            place = {tuple(e): row for row, e in enumerate(windows[-1].edges.tolist())}
            rows = torch.tensor([place[tuple(e)] for e in every[kept].tolist()], dtype=torch.long)
        own_begin = windows[-1].own_end if windows else 0
        own_end = frame_count if k == len(starts) - 1 else end - reach
        windows.append(Window(begin, end, own_begin, own_end, every[order], int(kept.sum()), rows))
    return windows


@dataclass(frozen=True)
class Solution:
    """A whole clip: as `Aligned`, but arrays of NumPy, depth and confidence perhaps in files."""

    camera_from_world: np.ndarray
    focal_px: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    scores: np.ndarray
    noise: Noise


@dataclass
class Joiner:
    """Takes the windows one by one and joins them; its large arrays lie in files of `folder` when there is one."""

    frame_count: int
    size: tuple[int, int]
    knowns: Knowns = NOTHING_KNOWN
    folder: Path | None = None
    parts: list[tuple[Window, Sampled, State, Noise]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.frame_count, self.size[1], self.size[0])
        self.depth = self._array("depth", shape, np.float32)
        self.confidence = self._array("confidence", shape, np.float32)
        self.scores = self._array("scores", shape, np.float16)

    def _array(self, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
        if self.folder is None:
            return np.zeros(shape, kind)
        return np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)

    def add(self, window: Window, aligned: Aligned) -> None:
        """Take a window's result; only its sample of pixels, and the frames that it decides, are kept."""
        own = slice(window.own_begin, window.own_end)
        local = slice(window.own_begin - window.begin, window.own_end - window.begin)
        self.depth[own] = aligned.depth[local].numpy()
        self.confidence[own] = aligned.confidence[local].numpy()
        self.scores[own] = aligned.scores[local].numpy()
        self.parts.append((window, aligned.sampled, aligned.state, aligned.noise))

    def finish(self, progress: Callable[[float], None] = lambda fraction: None) -> Solution:
        """The whole clip. Windows are chained by the frames that they share, then all cameras are solved at once.

        Raises UserError when too few frames can be placed.
        """
        if len(self.parts) == 1:
            _, _, state, noise = self.parts[0]
        else:
            sampled, chained = self._chained()
            check_placed(chained.placed, self.frame_count)
            solved = solve(sampled, with_knowns(chained, self.knowns), self.knowns, progress=progress)
            state, noise = solved.state, solved.noise
            # The depth of a window's frames follows the scale that the whole clip gives them.
            change = (state.log_depth - chained.log_depth).median(dim=1).values
            factor = torch.nan_to_num(change).exp().cpu().numpy()
            for n in range(self.frame_count):
                self.depth[n] *= factor[n]
        cameras = cameras_of(state, self.knowns)
        return Solution(
            camera_from_world=cameras.camera_from_world.cpu().numpy(),
            focal_px=cameras.focal_px.cpu().numpy(),
            depth=self.depth,
            confidence=self.confidence,
            scores=self.scores,
            noise=noise,
        )

    def _chained(self) -> tuple[Sampled, State]:
        """One problem over the whole clip and a state of it; the depth in hand is brought to its scale.

        A window that shares no placed frame with those before it cannot be placed beside them, and is left out.
        """
        first = self.parts[0][1]
        device = first.uv.device
        poses = torch.full((self.frame_count, 4, 4), torch.nan, dtype=torch.float64, device=device)
        log_focal = torch.full((self.frame_count,), torch.nan, dtype=torch.float64, device=device)
        log_depth = torch.zeros(self.frame_count, len(first.uv), device=device)
        together, log_scale = None, []
        for k, (window, sampled, state, _) in enumerate(self.parts):
            frames = slice(window.begin, window.end)
            shift, turned = 0.0, state.camera_from_world
            if k:
                if not bool((_placed(poses[frames]) & state.placed).any()):
                    for array in (self.depth, self.confidence):
                        array[window.own_begin : window.own_end] = 0
                    continue
                shift, turned = _bring(state, poses[frames], log_depth[frames])
            own = torch.arange(window.begin, window.end, device=device)
            known = _placed(poses[frames])
            new = _placed(turned) & ((own >= window.own_begin) | ~known)
            poses[own[new]], log_focal[own[new]] = turned[new], state.log_focal[new]
            log_depth[own[new]] = state.log_depth[new] + shift
            self.depth[window.own_begin : window.own_end] *= float(np.exp(shift))
            mine = sampled.between(own)
            fresh = torch.ones(len(mine.edges), dtype=torch.bool, device=device)
            if k:
                before = self.parts[k - 1][0]
                fresh = ~((mine.edges >= before.begin) & (mine.edges < before.end)).all(-1)
            mine = mine.where(fresh)
            log_scale.append((state.log_scale + shift)[fresh])
            together = mine if together is None else together.joined(mine)
        keep = _placed(poses)[together.edges].all(-1)
        log_focal = torch.where(log_focal.isnan(), log_focal.nanmedian(), log_focal)
        state = State(poses, torch.cat(log_scale)[keep], log_focal, log_depth)
        return together.where(keep), state


def _bring(state: State, poses: torch.Tensor, log_depth: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The log of the scale that brings a window's state to the frames known already, and its cameras there."""
    shared = _placed(poses) & state.placed
    shift = float((log_depth[shared] - state.log_depth[shared]).median())
    scaled = state.camera_from_world.clone()
    scaled[:, :3, 3] *= np.exp(shift)
    # world of the clip from the world of the window, by each shared frame: their mean.
    each = torch.linalg.inv(poses[shared]) @ scaled[shared]
    u, _, vt = torch.linalg.svd(each[:, :3, :3].sum(0))
    turn = torch.eye(4, dtype=each.dtype, device=each.device)
    turn[:3, :3] = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vt))], dtype=u.dtype)).to(u) @ vt
    turn[:3, 3] = each[:, :3, 3].median(dim=0).values
    return shift, scaled @ torch.linalg.inv(turn)


def _placed(poses: torch.Tensor) -> torch.Tensor:
    """(T,) bool: which of (T, 4, 4) poses are known."""
    return torch.isfinite(poses).all(-1).all(-1)
