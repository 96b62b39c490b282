"""A plate that does not belong to a capture is refused in a sentence, and not placed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.camera import unproject
from backend.known_cameras import KnownCameras
from backend.wire import UserError
from tests.localise.sets import (
    PLATE_SIZE,
    LocaliseWith,
    OracleMatcher,
    first,
    held_out,
    lens_of,
    localised,
    reference,
)
from tests.oracle import as_clip


def refused(frames: np.ndarray, tmp_path, capture=None, **options) -> str:
    plate = replace(held_out(), clip=as_clip(np.ascontiguousarray(frames)))
    with pytest.raises(UserError) as error:
        localised(plate, capture or reference()[1], tmp_path, **options)
    return str(error.value)


def test_noise_is_refused(tmp_path):
    frames = np.random.default_rng(3).integers(0, 255, (2, 240, 400, 3)).astype(np.uint8)
    assert "does not seem to belong" in refused(frames, tmp_path)


def test_a_mirrored_picture_is_refused(tmp_path):
    assert "does not seem to belong" in refused(held_out().clip.frames[:2, :, ::-1], tmp_path)


def test_a_mirrored_wall_is_refused_although_a_camera_behind_it_would_see_it_so(tmp_path):
    """Matches of a mirrored flat surface agree, all of them, on a camera at its back."""
    true, capture = reference()
    plate = held_out()

    class Mirrored(OracleMatcher):
        def match(self, plate, view, known):
            wall = (
                np.abs(
                    np.asarray(
                        unproject(
                            capture.depth[view.key[1]],
                            capture.intrinsics[view.key[1]],
                            capture.world_from_camera[view.key[1]],
                        )[..., 2]
                    )
                    - 5
                )
                < 0.01
            )
            found = super().match(plate, view, known & wall)
            return replace(found, plate_xy=found.plate_xy * (-1, 1) + (PLATE_SIZE[0], 0))

    engine = LocaliseWith(Mirrored(plate, true, capture, wrong=0.0, count=2000))
    with pytest.raises(UserError, match="from behind, as a mirrored picture"):
        localised(plate, capture, tmp_path, lens_of(plate), engine)


def test_another_room_is_refused(tmp_path):
    from tests.worlds import film, look

    cameras = np.stack([look(0.4, 0.1, 0, (5.5, 0.3, 9.0)), look(0.45, 0.1, 0, (5.6, 0.3, 9.0))])
    other = film(cameras, np.tile([360.0, 360, 200, 120], (2, 1)), 400, 240, far_wall_m=17.0, pillars=((6.0, 13.0),))
    assert "does not seem to belong" in refused(other.rgb, tmp_path)


def test_a_flat_picture_is_refused(tmp_path):
    assert "does not seem to belong" in refused(np.full((2, 240, 400, 3), 90, np.uint8), tmp_path)


def test_a_plate_that_fits_two_places_is_refused(tmp_path):
    """Two frames of the capture, metres apart, hold the same picture: a wall whose pattern repeats."""
    _, capture = reference()
    poses = np.array(capture.world_from_camera)
    poses[3:] = poses[:3]
    poses[3:, 0, 3] += 2.0
    arrays = {
        name: np.concatenate([getattr(capture, name)[:3]] * 2) for name in ("rgb", "depth", "confidence", "dynamic")
    }
    twice = replace(capture, world_from_camera=poses, **arrays)
    plate = first(held_out(), 1)
    with pytest.raises(UserError, match="two places of the capture equally well"):
        localised(plate, twice, tmp_path, lens_of(plate), compare=6)


def test_without_a_capture_there_is_nothing_to_be_put_into(tmp_path):
    with pytest.raises(UserError, match="no capture to put the plate into"):
        localised(held_out(), None, tmp_path)


def test_given_poses_are_refused(tmp_path):
    known = KnownCameras(world_from_camera=held_out().world_from_camera)
    with pytest.raises(UserError, match="poses are given"):
        localised(held_out(), reference()[1], tmp_path, clip={"known_cameras": known})
