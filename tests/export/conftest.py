"""Captures that every exporter is held to: an exact one, and one with a frame whose camera is not known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from backend.wire import Capture, FrameReport
from tests.worlds import as_capture, room

FRAMES, LOST = 5, 2


def without_camera(capture: Capture, frame: int) -> Capture:
    """The same capture, had the solve failed for one frame."""
    world_from_camera, intrinsics = capture.world_from_camera.copy(), capture.intrinsics.copy()
    world_from_camera[frame], intrinsics[frame] = np.nan, np.nan
    reports = tuple(FrameReport(False) if i == frame else r for i, r in enumerate(capture.frames))
    return replace(capture, world_from_camera=world_from_camera, intrinsics=intrinsics, frames=reports)


@pytest.fixture(scope="session")
def exact() -> Capture:
    """A 96 x 64 capture of a 384 x 256 plate, at 24000/1001 frames a second."""
    return as_capture(room(FRAMES), plate_size=(384, 256), fps=Fraction(24000, 1001))


@pytest.fixture(scope="session")
def holed(exact) -> Capture:
    """The exact capture without the camera of frame 2."""
    return without_camera(exact, LOST)
