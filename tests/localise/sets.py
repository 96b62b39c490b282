"""Sets with truth for localising: a capture of a room, and plates of the same room that are no part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from backend.engines.localise import LocaliseEngine
from backend.geometry.camera import project, unproject
from backend.geometry.rigid import rotation_angles_deg
from backend.localise.found import Found, Picture
from backend.run import Run
from backend.wire import Capture, ClipSettings, JobSettings, LensSettings, LocaliseSettings
from tests.oracle import TrueClip, film_room, oracle_capture, travelling

#: Width of the room in metres: what errors are a share of.
ROOM_M = 6.0
REFERENCE_SIZE, PLATE_SIZE = (320, 192), (400, 240)
REFERENCE_FOCAL, PLATE_FOCAL = 0.9 * 320, 1.2 * 400


@cache
def reference() -> tuple[TrueClip, Capture]:
    """A travelling shot of the room, and the exact capture of it, whose world is the room's."""
    true = film_room(travelling(6), REFERENCE_SIZE, REFERENCE_FOCAL)
    exact = oracle_capture(true, path_error=0, step_deg=0, focal_error=0, depth_error=0, scale=1)
    return true, replace(exact, world_from_camera=true.world_from_camera, metric=True)


@cache
def held_out(size: tuple[int, int] = PLATE_SIZE, focal_px: float = PLATE_FOCAL, frames: int = 4) -> TrueClip:
    """Another shot of the same room, from elsewhere and through another lens."""
    cameras = travelling(frames, far=(-0.8, 0.15, 0.9), turn=(0.2, -0.05, 0.03), seed=5)
    return film_room(cameras, size, focal_px)


def first(true: TrueClip, count: int) -> TrueClip:
    """The same of the first frames alone."""
    info = true.clip.info
    cut = replace(info, frame_indices=info.frame_indices[:count], timestamps=info.timestamps[:count])
    clip = replace(true.clip, info=cut, frames=true.clip.frames[:count])
    arrays = ("depth", "masks", "world_from_camera", "intrinsics")
    return replace(true, clip=clip, **{name: getattr(true, name)[:count] for name in arrays})


def lens_of(plate: TrueClip) -> LensSettings:
    """The plate's focal length as an artist would enter it."""
    return LensSettings(focal_mm=36 * float(plate.intrinsics[0, 0]) / plate.clip.info.plate_size[0])


def job(lens: LensSettings | None = None, grid: int = 128, **options) -> JobSettings:
    """A job with the classic matcher, and depth on a small grid."""
    return JobSettings(
        engine="localise",
        clip=ClipSettings(long_side=grid),
        lens=lens or LensSettings(),
        engine_settings=LocaliseSettings(**{"matcher": "classic"} | options),
    )


@dataclass
class OracleMatcher:
    """Knows where a pixel of the capture is on the plate, with noise in px; a share of its matches is wrong."""

    plate: TrueClip
    there: TrueClip
    capture: Capture
    noise_px: float = 0.5
    wrong: float = 0.3
    count: int = 400

    name, label, made_from = "oracle", "Oracle", {"matcher": "oracle"}

    def match(self, plate: Picture, view: Picture, known: np.ndarray) -> Found:
        t, frame = plate.key[1], view.key[1]
        rng = np.random.default_rng([t, frame])
        rows, columns = np.nonzero(known)
        some = rng.permutation(len(rows))[: self.count]
        map_xy = np.stack([columns[some], rows[some]], axis=1) + 0.5
        lens = self.capture.intrinsics[frame]
        depth = cv2.resize(self.there.depth[frame], known.shape[::-1], interpolation=cv2.INTER_NEAREST)
        points = unproject(depth, lens, self.there.world_from_camera[frame])[rows[some], columns[some]]
        xy, z = project(points, self.plate.intrinsics[t], self.plate.world_from_camera[t])
        width, height = self.plate.clip.info.plate_size
        inside = (z > 0) & (xy > 0).all(axis=1) & (xy < (width, height)).all(axis=1)
        x, y = np.floor(xy[inside]).astype(int).T
        inside[inside] = np.abs(self.plate.depth[t, y, x] / z[inside] - 1) < 0.02
        xy = xy[inside] + rng.normal(0, self.noise_px, (inside.sum(), 2))
        astray = rng.random(len(xy)) < self.wrong
        xy[astray] = rng.random((astray.sum(), 2)) * (width, height)
        on_store = self.plate.clip.store_map.to_grid(xy)
        return Found(on_store, map_xy[inside], np.ones(len(xy), np.float32))


class LocaliseWith(LocaliseEngine):
    """The engine with another matcher."""

    def __init__(self, matcher) -> None:
        self._matcher = matcher

    def matcher(self, options, run):
        return self._matcher, ()


def localised(
    plate: TrueClip,
    capture: Capture,
    work: Path,
    lens: LensSettings | None = None,
    engine: LocaliseEngine | None = None,
    clip: dict | None = None,
    **options,
) -> Capture:
    """The plate's clip, with these of its fields, localised in the capture."""
    put = replace(plate.clip, reference=capture, **(clip or {}))
    return (engine or LocaliseEngine()).reconstruct(put, job(lens, **options), Run(work_dir=work))


def errors(found: Capture, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) metres and (T,) degrees by which cameras are off, in the one world: nothing is aligned."""
    away = np.linalg.norm(found.world_from_camera[:, :3, 3] - world_from_camera[:, :3, 3], axis=1)
    turn = np.swapaxes(found.world_from_camera[:, :3, :3], 1, 2) @ world_from_camera[:, :3, :3]
    return away, rotation_angles_deg(turn)
