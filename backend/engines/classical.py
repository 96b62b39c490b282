"""The classical engine: structure from motion and optical flow, without a network.

It reads as the method goes: track -> classify and solve -> flow -> mask the movers -> solve again without them ->
triangulate every pixel -> fill -> stand movers up as cards. The parts are in `backend/classical/`.

The world is the first registered camera's frame, scaled so that the tracked points are at a median depth of 5 units
(what is seen by a camera that only turns, or stands, is put on a sphere of radius 5 about it).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from ..classical.camera import Shot, Solved, known_lens, normalised, solve_again, solve_first
from ..classical.cards import stand_cards
from ..classical.dense import dense_depth
from ..classical.fill import fill
from ..classical.flow import Flows, neighbour_flows
from ..classical.motion_mask import motion_masks
from ..classical.nodal import RADIUS
from ..classical.plates import plate_masks
from ..classical.report import Geometry, to_capture
from ..classical.sfm import Solution
from ..classical.showing import camera_frames
from ..classical.tracks import Observations, track_points
from ..clip import Clip
from ..geometry.camera import rays
from ..live import depth_frame
from ..run import Run
from ..wire import CONFIDENCE_FILLED, Capture, ClassicalSettings, JobSettings, PlateMap

#: What a solved camera is made of.
SOLVED = (Solved, Solution, Observations)
#: Tracks sighted inside a mask more often than this are a mover's, and dropped whole.
MOVER_SHARE = 0.25


class ClassicalEngine:
    """Structure from motion and optical flow; see the module's docstring."""

    plan = (
        ("Tracking points", 0.03),
        ("Solving the camera", 0.12),
        ("Optical flow", 0.24),
        ("Finding movers", 0.10),
        ("Solving without movers", 0.30),
        ("Measuring depth", 0.15),
        ("Filling", 0.06),
    )

    def check(self, settings: JobSettings) -> None:
        """It needs nothing but the clip."""

    def help(self, clip: Clip, settings: JobSettings, run: Run) -> None:
        """Make pieces of the flow for a job that runs elsewhere with the same clip."""
        rgb, _ = clip.processed(settings.clip.long_side)
        neighbour_flows(rgb, run)

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when its camera cannot be solved honestly."""
        options: ClassicalSettings = settings.engine_settings
        shot = Shot(clip.frame_count, clip.info.plate_size, known_lens(clip, settings))
        rgb, grid = clip.processed(settings.clip.long_side)
        known_masks = clip.processed_masks(settings.clip.long_side)
        cv2.setRNGSeed(run.seed)
        run.ask_for_help(len(rgb), "Flow", {"frames": rgb})

        # A later job of the same clip goes on from where something that it reads is different, such as the masks.
        with run.stage("Tracking points"):
            made_from = {"frames": clip.frames, "features": options.max_features}
            tracks = run.remember(
                "Tracks", made_from, lambda: track_points(clip.frames, options.max_features, run), (Observations,)
            )
            tracks = replace(tracks, xy=clip.store_map.to_plate(tracks.xy))
        with run.stage("Solving the camera"):
            made_from = {"tracks": tracks, "shot": shot, "seed": run.seed}
            solved = run.remember("First camera", made_from, lambda: solve_first(shot, tracks, run), SOLVED)
            run.show(partial(camera_frames, clip, solved, rgb, grid))
        with run.stage("Optical flow"):
            flows = run.remember("Flow", {"frames": rgb}, lambda: neighbour_flows(rgb, run), (Flows,))

        def masks_for(camera: Solved, steady: bool) -> np.ndarray:
            masks = np.zeros(rgb.shape[:3], bool) if known_masks is None else known_masks
            if not options.find_movers:
                return masks
            poses, intrinsics = camera.solution.world_from_camera, grid.intrinsics_to_grid(camera.solution.intrinsics)
            of_camera = poses, intrinsics, options.mover_threshold
            made_from = {"frames": run.content(rgb), "camera": of_camera, "steady": steady}
            return masks | run.remember(
                "Motion masks", made_from, lambda: motion_masks(rgb, flows, *of_camera, run, steady)
            )

        with run.stage("Finding movers"):
            masks = masks_for(solved, steady=False)
        with run.stage("Solving without movers"):
            first, static = solved, without_movers(tracks, masks, grid)
            made_from = {"first": first, "static": static, "shot": shot, "seed": run.seed}
            solved = run.remember("Camera", made_from, lambda: solve_again(first, shot, static, run), SOLVED)
            solved = normalised(solved)
            masks = masks_for(solved, steady=True)

        poses, intrinsics = solved.solution.world_from_camera, grid.intrinsics_to_grid(solved.solution.intrinsics)

        def show(t: int, depth: np.ndarray) -> None:
            seen = {"rgb": rgb[t], "grid": grid, "depth": depth, "dynamic": masks[t]}
            run.show(lambda: [depth_frame(clip.info, t, **seen, world_from_camera=poses[t], intrinsics=intrinsics)])

        with run.stage("Measuring depth"):
            if solved.kind == "moving":
                made_from = {"frames": run.content(rgb), "camera": (poses, intrinsics)}
                depth, confidence = run.remember(
                    "Depth", made_from, lambda: dense_depth(flows, poses, intrinsics, run, show)
                )
                depth[masks] = confidence[masks] = 0
            else:
                depth, confidence = dome(rgb.shape[:3], intrinsics, options.fill_holes)
        with run.stage("Filling"):
            if solved.kind == "moving":
                background, marks = fill(depth, confidence, masks, rgb, run)
                if options.fill_holes:
                    depth, confidence = background, marks
                if options.movers_as_cards:
                    depth, confidence = stand_cards(depth, confidence, masks, background, run)
            for t in range(len(depth)):
                show(t, depth[t])
            full_masks = plate_masks(masks, clip.frames, shot.size, run)
        return to_capture(clip, settings, solved, Geometry(grid, rgb, depth, confidence, masks, full_masks), run)


def without_movers(tracks: Observations, masks: np.ndarray, grid: PlateMap) -> Observations:
    """Tracks without what was sighted in a mask, and none at all of points that often were."""
    height, width = masks.shape[1:]
    grown = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for m in masks])
    x, y = np.floor(grid.to_grid(tracks.xy)).astype(int).T
    masked = grown[tracks.frame, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    share = np.bincount(tracks.track, masked) / np.maximum(np.bincount(tracks.track), 1)
    return tracks.where(~masked & (share[tracks.track] < MOVER_SHARE))


def dome(shape: tuple[int, int, int], intrinsics: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence (T, H, W) of a sphere around the camera, marked as filled; nothing unless wanted."""
    frames, height, width = shape
    if not wanted:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    depth = RADIUS / np.linalg.norm(rays(intrinsics, width, height), axis=-1)
    return np.tile(depth.astype(np.float32), (frames, 1, 1)), np.full(shape, CONFIDENCE_FILLED, np.float32)
