"""What the Point3R engine shows of a frame as soon as it has passed: its points, its camera, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..live import depth_frame
from ..monst3r.knowns import Given
from ..monst3r.pictures import Pictures
from ..run import Run
from ..streaming.focal import centre_of
from ..streaming.movers import MoverWatch, PosedDepth
from ..wire import ClipInfo, LiveFrame, Point3RSettings
from .passing import Passed
from .report import intrinsics_of


class Window:
    """Shows frames in the stream's world, with what moves as far as the frames before tell."""

    def __init__(
        self, clip: ClipInfo, pictures: Pictures, options: Point3RSettings, given: Given, locked: bool, run: Run
    ) -> None:
        self.clip, self.pictures, self.options, self.locked, self.run = clip, pictures, options, locked, run
        self.centre = given.centre or centre_of(*pictures.size)
        self.watch = MoverWatch(device=run.device) if options.find_movers else None

    def show(self, passed: Passed, t: int, pointers: Callable[[], np.ndarray]) -> None:
        """Frame `t` of what has `passed`, if somebody watches."""
        self.run.show(lambda: [self._frame(passed, t, pointers())])

    def _frame(self, passed: Passed, t: int, pointers: np.ndarray) -> LiveFrame | None:
        camera = passed.world_from_camera[t]
        if self.locked and np.isfinite(camera).all():
            camera = np.eye(4)
        lens = intrinsics_of(passed.lens_px[t : t + 1], self.centre)[0]
        depth = np.where(passed.confidence[t] >= self.options.min_confidence, passed.depth[t], 0)
        depth = (depth * passed.scale[t]).astype(np.float32)
        moving = None
        if self.watch is not None:
            moving = self.watch.push(PosedDepth(depth, camera, lens)) > self.options.mover_threshold
        return depth_frame(
            self.clip,
            t,
            rgb=self.pictures.rgb[t],
            grid=self.pictures.plate_map,
            depth=depth,
            world_from_camera=camera,
            intrinsics=lens,
            dynamic=moving,
            pointers=pointers,
        )
