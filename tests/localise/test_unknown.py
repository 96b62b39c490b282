"""Localising leaves out what is not known: movers, guessed depth, frames without a camera, frames of something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.camera import unproject
from backend.wire import UserError
from tests.localise.sets import (
    ROOM_M,
    errors,
    first,
    held_out,
    lens_of,
    localised,
    reference,
)


def test_movers_of_the_capture_are_no_points(tmp_path):
    true, capture = reference()
    plate = first(held_out(), 2)
    found = localised(plate, capture, tmp_path, lens_of(plate))
    dynamic = unproject(capture.depth[0], capture.intrinsics[0], true.world_from_camera[0])[capture.dynamic[0]]
    nearest = np.linalg.norm(found.tracks.points_world[:, None] - dynamic[None, ::20], axis=-1).min(axis=1)
    assert np.median(nearest) > 0.3
    assert (nearest < 0.02).sum() == 0


def test_masked_parts_of_the_plate_are_not_matched(tmp_path):
    plate, (_, capture) = first(held_out(), 1), reference()
    masks = np.zeros(plate.masks.shape, bool)
    masks[:, :, :200] = True
    found = localised(plate, capture, tmp_path, lens_of(plate), clip={"known_masks": masks})
    assert found.tracks.plate_xy[:, 0].min() >= 199
    assert found.dynamic[0, :, :63].all()
    assert not found.dynamic[0, :, 65:].any()


def test_depth_that_was_only_guessed_is_not_used(tmp_path):
    """Filled depth has a confidence below that of measured ones, and may be far off."""
    plate, (_, capture) = first(held_out(), 2), reference()
    depth, confidence = np.array(capture.depth), np.array(capture.confidence)
    depth[:, :, ::3], confidence[:, :, ::3] = 1.0, 0.1
    left = replace(capture, depth=depth, confidence=confidence)
    with pytest.raises(UserError, match="does not seem to belong"):
        localised(plate, replace(capture, depth=np.where(depth > 0, 1.0, 0).astype(np.float32)), tmp_path)
    # Columns that are left have no second one beside them to interpolate with, but features on their middle do.
    left = replace(left, depth=np.where(np.arange(320) < 160, capture.depth, depth).astype(np.float32))
    left = replace(left, confidence=np.where(np.arange(320) < 160, 1.0, confidence).astype(np.float16))
    found = localised(plate, left, tmp_path, lens_of(plate))
    assert errors(found, plate.world_from_camera)[0].max() < 0.01 * ROOM_M


def test_frames_without_a_camera_are_not_matched_with(tmp_path):
    plate, (_, capture) = first(held_out(), 1), reference()
    poses = np.array(capture.world_from_camera)
    poses[:3] = np.nan
    frames = tuple(replace(f, registered=t >= 3) for t, f in enumerate(capture.frames))
    found = localised(plate, replace(capture, world_from_camera=poses, frames=frames), tmp_path, lens_of(plate))
    assert set(found.shot.details["localised"]["frames"][0]["compared"]) == {3, 4, 5}
    none = tuple(replace(f, registered=False) for f in capture.frames)
    with pytest.raises(UserError, match="no frame with a measured camera"):
        localised(plate, replace(capture, frames=none), tmp_path)


def test_a_frame_that_shows_something_else_is_put_between_its_neighbours_and_says_so(tmp_path):
    plate, (_, capture) = held_out(), reference()
    frames = np.array(plate.clip.frames)
    frames[2] = np.random.default_rng(0).integers(0, 255, frames[2].shape)
    found = localised(replace(plate, clip=replace(plate.clip, frames=frames)), capture, tmp_path, lens_of(plate))
    assert [f.registered for f in found.frames] == [True, True, False, True]
    assert found.frames[2].interpolated
    assert errors(found, plate.world_from_camera)[0][2] < 0.02 * ROOM_M
    assert found.shot.details["localised"]["frames"][2]["refused"]
    assert any("1 of 4 frames could not be placed" in w for w in found.shot.warnings)


def test_frames_before_the_first_that_was_placed_have_no_camera(tmp_path):
    plate, (_, capture) = first(held_out(), 3), reference()
    frames = np.array(plate.clip.frames)
    frames[0] = 128
    found = localised(replace(plate, clip=replace(plate.clip, frames=frames)), capture, tmp_path, lens_of(plate))
    assert np.isnan(found.world_from_camera[0]).all()
    assert not found.depth[0].any()
    assert not found.frames[0].registered
    assert not found.frames[0].interpolated
