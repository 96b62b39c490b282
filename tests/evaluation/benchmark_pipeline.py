"""The world of the synthetic benchmarks, exact captures of it, and a pipeline that makes them in a real worker."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from backend.run import Run
from backend.wire import Capture, JobSettings, UserError, write_capture
from tests.worlds import as_capture, film, hand_held, square_intrinsics

FRAMES, WIDTH, HEIGHT = 6, 64, 48
WORLD = film(hand_held(FRAMES), square_intrinsics(585 * WIDTH / 640, WIDTH, HEIGHT, FRAMES), WIDTH, HEIGHT)
CAPTURE = as_capture(WORLD)


def of_frames(frames: list[int], **changes: Any) -> Capture:
    """The capture of some of the world's frames."""
    part = {name: getattr(CAPTURE, name)[frames] for name in ("depth", "confidence", "dynamic", "rgb", "intrinsics")}
    clip = replace(CAPTURE.clip, frame_indices=tuple(frames), timestamps=tuple(map(float, frames)))
    part |= {"world_from_camera": CAPTURE.world_from_camera[frames], "frames": CAPTURE.frames[: len(frames)]}
    return replace(CAPTURE, **({"clip": clip, "tracks": None} | part | changes))


def reconstruct(source: Path, out: Path, settings: JobSettings, run: Run, **given: Any) -> Path:
    """The world's frames whose numbers the pictures' names end with; refuses a clip that begins with black."""
    pictures = sorted(source.iterdir())
    run.plan = [("Looking", 1.0)]
    with run.stage("Looking"):
        if not cv2.imread(str(pictures[0])).any():
            raise UserError("The first picture is black", "choose another")
        capture = of_frames([int(re.findall(r"\d+", picture.name)[-1]) for picture in pictures])
        clip = replace(
            capture.clip,
            kind="images",
            image_names=tuple(picture.name for picture in pictures),
            frame_indices=tuple(range(len(pictures))),
        )
    return write_capture(
        replace(capture, clip=clip, settings=settings.to_json()), out, replace=given["replace_earlier"]
    )
