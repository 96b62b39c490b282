"""Pairs compared: the network's answers come as a stream, and of each only matches and sums over frames are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..matching.matches import Matches, joined
from ..monst3r.knowns import STILL_PX
from ..run import Run
from ..sparse.canonical import CanonicalSums, CanonicalView
from ..sparse.problem import PairMatches, SparseProblem
from ..sparse.views import SymmetricPair, ViewSource

#: What finds matches from frame i to frame j; the two masks (H, W), or None, say where nothing may be matched.
Matcher = Callable[[SymmetricPair, torch.Tensor | None, torch.Tensor | None], Matches]


@dataclass(frozen=True)
class Compared:
    """What was kept of P pairs `edges` (P, 2), i < j, of K frames; arrays on the host, in the alignment's pixels.

    Of each frame its canonical view (see `CanonicalView`): `points` (K, H, W, 3), `depth_ratio` and `confidence`
    (K, H, W), `focal_px` (K,), `core_depth` (K, H/8, W/8); `mover_confidence` (K, H, W) is what the network said under
    a mask, where the view's own is 0. Of each pair its matches, `xy_1`, `xy_2` (M, 2) and `match_confidence` (M,),
    pair p from `begin[p]` to `begin[p + 1]`.
    """

    points: np.ndarray
    depth_ratio: np.ndarray
    confidence: np.ndarray
    mover_confidence: np.ndarray
    focal_px: np.ndarray
    core_depth: np.ndarray
    edges: np.ndarray
    begin: np.ndarray
    xy_1: np.ndarray
    xy_2: np.ndarray
    match_confidence: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        return self.depth_ratio.shape[2], self.depth_ratio.shape[1]

    def problem(self, least: float = 0.0) -> SparseProblem:
        """The same as a problem for a solver, which shares these arrays.

        Pairs none of whose matches is surer than `least` bring no matches.
        """
        views = [
            CanonicalView(*map(torch.from_numpy, (p, r, c)), float(f), torch.from_numpy(d))
            for p, r, c, f, d in zip(self.points, self.depth_ratio, self.confidence, self.focal_px, self.core_depth)
        ]
        pairs = []
        for p, (i, j) in enumerate(self.edges):
            matches = self.matches(p)
            sure = len(matches) and float(matches.confidence.max()) > least
            pairs.append(PairMatches(int(i), int(j), matches if sure else joined([])))
        return SparseProblem(views, pairs, self.size)

    def matches(self, pair: int) -> Matches:
        """Those of a pair."""
        part = slice(self.begin[pair], self.begin[pair + 1])
        xy_1, xy_2 = (torch.from_numpy(xy[part].astype(np.int64)) for xy in (self.xy_1, self.xy_2))
        return Matches(xy_1, xy_2, torch.from_numpy(self.match_confidence[part]))


def compare(
    source: ViewSource,
    match: Matcher,
    pairs: Sequence[tuple[int, int]],
    keys: np.ndarray,
    masks: np.ndarray | None,
    size: tuple[int, int],
    run: Run,
    centre: tuple[float, float] | None = None,
) -> Compared:
    """The answers to `pairs` of the frames `keys` (K,) of the source, as indices into `keys`, i < j, every one in some.

    `masks` (K, H, W) are True on movers, None for none: no match ends there, and canonical views do not count there.
    `centre` is the principal point, None for (W/2, H/2).
    Memory on the device goes by frames whose pairs are still to come; finished ones lie in files of `run.work_dir`.
    Raises UserError as `CanonicalSums` does, and Cancelled.
    """
    kept = _Kept(len(keys), size, Path(run.work_dir), centre)
    left = Counter(n for pair in pairs for n in pair)
    sums: dict[int, _Frame] = {}
    place = {int(frame): n for n, frame in enumerate(keys)}
    found: dict[tuple[int, int], Matches] = {}
    asked = [(int(keys[i]), int(keys[j])) for i, j in pairs]
    for done, pair in enumerate(source.predict(asked)):
        i, j = place[pair.i], place[pair.j]
        for n, view in ((i, pair.ii), (j, pair.jj)):
            if n not in sums:
                sums[n] = _Frame(None if masks is None or not masks[n].any() else torch.from_numpy(masks[n]))
            sums[n].add(view)
        found[i, j] = match(pair, sums[i].mask, sums[j].mask).to("cpu")
        del pair
        for n in (i, j):
            left[n] -= 1
            if not left[n]:
                kept.put(n, sums.pop(n))
        run.progress((done + 1) / len(pairs))
    return _compared(kept, [tuple(pair) for pair in pairs], found)


def stands_still(compared: Compared) -> bool:
    """Whether most of the picture stays where it is in all pairs: a locked-off camera, or one that hardly moves."""
    limit = STILL_PX * compared.size[0] / 512
    moved = np.linalg.norm(compared.xy_2.astype(np.float64) - compared.xy_1, axis=1)
    parts = [moved[a:b] for a, b in zip(compared.begin, compared.begin[1:]) if b > a]
    return bool(parts) and all(np.median(part) < limit for part in parts)


class _Frame:
    """Running sums of one frame, and under its mask (H, W) of what the network is sure of there."""

    def __init__(self, mask: torch.Tensor | None) -> None:
        self.mask, self.views = mask, CanonicalSums(mask)
        self._sure, self._count = 0.0, 0

    def add(self, view) -> None:
        self.views.add(view)
        if self.mask is not None:
            self._sure, self._count = self._sure + view.confidence, self._count + 1

    def mover_confidence(self) -> torch.Tensor | float:
        return 0.0 if self.mask is None else self._sure.cpu() / self._count * self.mask


class _Kept:
    """Finished canonical views of all frames, in files."""

    def __init__(self, count: int, size: tuple[int, int], folder: Path, centre: tuple[float, float] | None) -> None:
        width, height = size
        self._centre = centre

        def array(name: str, *shape: int) -> np.ndarray:
            shape = (count, *shape)
            return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)

        self.points = array("canonical_points", height, width, 3)
        self.depth_ratio, self.confidence, self.mover_confidence = (
            array(name, height, width) for name in ("depth_ratio", "canonical_confidence", "mover_confidence")
        )
        self.core_depth, self.focal_px = array("core_depth", height // 8, width // 8), np.zeros(count)

    def put(self, n: int, frame: _Frame) -> None:
        view = frame.views.finish(self._centre)
        for name in ("points", "depth_ratio", "confidence", "core_depth"):
            getattr(self, name)[n] = getattr(view, name).cpu().numpy()
        self.focal_px[n] = view.focal_px
        self.mover_confidence[n] = frame.mover_confidence()


def _compared(kept: _Kept, pairs: list[tuple[int, int]], found: dict[tuple[int, int], Matches]) -> Compared:
    """Everything in the order of the pairs, whatever the order of the answers."""
    matches = [found[pair] for pair in pairs]
    return Compared(
        **{name: value for name, value in vars(kept).items() if name != "_centre"},
        edges=np.array(pairs, np.int32).reshape(-1, 2),
        begin=np.cumsum([0, *map(len, matches)]),
        xy_1=np.concatenate([m.xy_1.numpy().astype(np.int16) for m in matches]),
        xy_2=np.concatenate([m.xy_2.numpy().astype(np.int16) for m in matches]),
        match_confidence=np.concatenate([m.confidence.numpy() for m in matches]),
    )
