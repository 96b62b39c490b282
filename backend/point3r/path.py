"""The path of the camera after the clip has passed: neighbours solved against each other, and loops closed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..run import Run
from ..streaming.following import View, view_of
from ..streaming.loops import LoopFinder
from ..streaming.poses import UNSURE
from ..streaming.refining import RefinedPath, refine_stream
from ..wire import Point3RSettings
from .passing import Passed


@dataclass(frozen=True)
class PassedFrames:
    """The clip's frames as the refinement reads them: pictures (T, H, W, 3), what `passed`, (T, H, W) known masks of
    what moves or None, the lens `focal_px` (T,) and its `centre`."""

    rgb: np.ndarray
    passed: Passed
    masks: np.ndarray | None
    focal_px: np.ndarray
    centre: tuple[float, float]

    def __len__(self) -> int:
        return len(self.rgb)

    def view(self, n: int) -> View:
        """Frame `n`, whose least sure points and movers are left out."""
        sure = np.asarray(self.passed.confidence[n], np.float32)
        usable = sure >= np.quantile(sure, UNSURE)
        if self.masks is not None:
            usable &= ~self.masks[n]
        return view_of(self.rgb[n], self.passed.depth[n], usable, float(self.focal_px[n]), self.centre)


def path_of(
    frames: PassedFrames, options: Point3RSettings, locked: bool, made_from: dict[str, Any], run: Run
) -> RefinedPath:
    """The streamed path, refined as the settings want it; `made_from` is all that the frames follow from."""
    passed = frames.passed
    as_streamed = RefinedPath(passed.world_from_camera, passed.scale, np.zeros(len(frames), bool))
    if locked or not options.refine_path:
        return as_streamed

    def refine() -> RefinedPath:
        loops = LoopFinder() if options.close_loops else None
        path = refine_stream(frames, passed.world_from_camera, passed.scale, loops, run.progress)
        kept, rejected = (tuple((int(i), int(j)) for i, j in pairs) for pairs in (path.loops, path.rejected))
        return replace(path, loops=kept, rejected=rejected)

    told = {**made_from, "focal_px": frames.focal_px, "centre": list(frames.centre), "loops": options.close_loops}
    return run.remember("Refined path", told, refine, (RefinedPath,))
