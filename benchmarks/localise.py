"""Localising measured: a held-out clip put into a capture of the same room, `python -m benchmarks.localise`.

The room of the tests at 640 x 384, 6 m wide. The capture is exact, or has the errors of a network's. Matches are those
of SIFT, or an oracle's with half a pixel of noise and 30 % wrong ones. The truth is brought to the capture's world by
the similarity between the capture's points and the true ones; the plate's own cameras are not aligned.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from backend.engines.localise import LocaliseEngine
from backend.geometry.camera import unproject
from backend.geometry.rigid import invert_poses, similarity_between
from backend.wire import Capture, LensSettings, UserError
from tests.localise.sets import ROOM_M, LocaliseWith, OracleMatcher, errors, lens_of, localised
from tests.oracle import as_clip, film_room, oracle_capture, travelling

SIZE = (640, 384)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12, help="of the capture and of the plate")
    frames = parser.parse_args().frames
    there = film_room(travelling(frames), SIZE, 0.9 * SIZE[0])
    held_out = travelling(frames, far=(-0.8, 0.15, 0.9), turn=(0.2, -0.05, 0.03), seed=5)
    plate = film_room(held_out, SIZE, 1.2 * SIZE[0])
    exact = oracle_capture(there, path_error=0, step_deg=0, focal_error=0, depth_error=0, scale=1)
    own = exact.world_from_camera[0] @ invert_poses(there.world_from_camera[0])  # a capture has a world of its own
    captures = {"exact": exact, "of a network": oracle_capture(there)}
    print(
        f"{'capture':<14}{'matches':<9}{'lens':<9}{'error, % of room':>18}{'degrees':>16}{'focal':>9}{'s a frame':>11}"
    )
    for kind, capture in captures.items():
        gauge = similarity_between(*(still_points(c) for c in (exact, capture)))
        truth = gauge.apply_to_poses(own @ plate.world_from_camera)
        engines = {"SIFT": LocaliseEngine(), "oracle": LocaliseWith(OracleMatcher(plate, there, capture))}
        for matches, engine in engines.items():
            for lens, given in (("known", lens_of(plate)), ("unknown", LensSettings())):
                with tempfile.TemporaryDirectory() as scratch:
                    began = time.monotonic()
                    found = localised(plate, capture, Path(scratch), given, engine, grid=512)
                    seconds = (time.monotonic() - began) / frames
                away, turned = errors(found, truth)
                away *= 100 / (gauge.scale * ROOM_M)
                focal = found.plate_intrinsics[:, 0].mean() / plate.intrinsics[0, 0] - 1
                print(
                    f"{kind:<14}{matches:<9}{lens:<9}{np.median(away):>8.3f} max {away.max():>5.3f}"
                    f"{np.median(turned):>7.3f} max {turned.max():.3f}{100 * focal:>+7.2f} %{seconds:>11.2f}",
                    flush=True,
                )
    noise = np.random.default_rng(0).integers(0, 255, (2, *SIZE[::-1], 3)).astype(np.uint8)
    elsewhere = film_room(travelling(2, turn=(0.0, 0.0, 0.0)) @ np.diag([-1.0, 1, -1, 1]), SIZE, 0.9 * SIZE[0])
    others = {
        "noise": noise,
        "mirrored": np.ascontiguousarray(plate.clip.frames[:2, :, ::-1]),
        "the room from the other side": elsewhere.clip.frames,
    }
    for name, rgb in others.items():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                localised(type(plate)(as_clip(rgb), *[None] * 4), exact, Path(scratch))
                print(f"{name}: PLACED")
            except UserError as error:
                print(f"{name}: refused ({error.message})")


def still_points(capture: Capture) -> np.ndarray:
    """(N, 3) points of the set, the same ones of every capture of it."""
    points = unproject(np.asarray(capture.depth, float), capture.intrinsics, capture.world_from_camera)
    return points[~np.asarray(capture.dynamic)][::97]


if __name__ == "__main__":
    main()
