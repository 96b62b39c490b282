"""The preview: each frame beside the middle one, rough but right, and refused where nothing fits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.geometry.rigid import rotation_angles_deg
from backend.monst3r.preview import preview, preview_pairs
from backend.run import Run
from backend.wire import Cancelled, UserError
from tests.align.by_oracle import depth_error, still_room
from tests.pair_oracle import EXACT, Errors, PairOracle
from tests.worlds import World, hand_held_room

FRAMES = 7
MIDDLE = 3


@pytest.fixture(scope="module")
def world() -> World:
    return still_room(FRAMES, 64, 48)


def predictions(world, errors=EXACT):
    return PairOracle(world, errors).predict(preview_pairs(len(world.depth)))


def errors_of(found, world) -> tuple[float, float]:
    """Largest distance in metres and angle in degrees of a camera, seen from the middle one, at the depth's scale."""
    truth = np.linalg.inv(world.world_from_camera[MIDDLE]) @ world.world_from_camera
    scale = np.median(world.depth[MIDDLE] / found.depth[MIDDLE])
    distance = np.linalg.norm(scale * found.world_from_camera[:, :3, 3] - truth[:, :3, 3], axis=1)
    turn = np.swapaxes(found.world_from_camera[:, :3, :3], 1, 2) @ truth[:, :3, :3]
    return distance.max(), rotation_angles_deg(turn).max()


def test_every_frame_is_compared_with_the_middle_one_which_comes_first():
    assert preview_pairs(5) == [(2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]


def test_exact_pairs_give_exact_cameras_and_depth(world):
    found = preview(predictions(world), None, Run())
    distance, angle = errors_of(found, world)
    assert distance < 0.01
    assert angle < 0.1
    np.testing.assert_array_equal(found.world_from_camera[MIDDLE], np.eye(4))
    np.testing.assert_allclose(found.focal_px, world.intrinsics[:, 0], rtol=2e-3)
    assert depth_error(found.depth, world) < 5e-3
    assert not found.interpolated.any()
    assert (found.scores == 0).all()


def test_with_a_network_s_errors_it_is_rough(world):
    found = preview(predictions(world, Errors()), None, Run())
    distance, angle = errors_of(found, world)
    assert distance < 0.5  # of a path of 1.3, at a depth of 4
    assert angle < 4
    assert depth_error(found.depth, world) < 0.12


def test_something_that_moves_does_not_take_the_cameras_with_it():
    world = hand_held_room(FRAMES, 64, 48)
    distance, angle = errors_of(preview(predictions(world), None, Run()), world)
    assert distance < 0.03
    assert angle < 0.5


def test_a_known_lens_is_kept(world):
    found = preview(predictions(world), 60.0, Run())
    assert (found.focal_px == 60.0).all()


def test_a_frame_that_does_not_fit_has_no_camera_and_nothing_else(world):
    given = predictions(world)
    points = given.points_j.clone()
    points[5] = torch.randn(points[5].shape, generator=torch.Generator().manual_seed(0)).half()
    found = preview(replace(given, points_j=points), None, Run())
    placed = np.isfinite(found.world_from_camera).all((1, 2))
    assert np.flatnonzero(~placed).tolist() == [5]
    assert (found.depth[5] == 0).all()
    assert (found.confidence[5] == 0).all()


def test_what_lies_behind_a_camera_has_no_depth(world):
    given = predictions(world)
    points = given.points_j.clone()
    points[:, :5, :, 2] = -1.0
    found = preview(replace(given, points_j=points), None, Run())
    assert (found.depth[MIDDLE, :5] == 0).all()
    assert (found.depth >= 0).all()


def test_a_clip_of_which_nothing_fits_is_refused(world):
    given = predictions(world)
    points = torch.randn(given.points_j.shape, generator=torch.Generator().manual_seed(0)).half()
    with pytest.raises(UserError, match=r"No frame could be placed beside the middle one; .* use the full mode"):
        preview(replace(given, points_j=points), None, Run())


def test_a_network_that_sees_nothing_in_front_is_refused(world):
    given = predictions(world)
    with pytest.raises(UserError, match="finds nothing in front"):
        preview(replace(given, points_i=-given.points_i), None, Run())


def test_the_preview_can_be_cancelled(world):
    with pytest.raises(Cancelled):
        preview(predictions(world), None, Run(is_cancelled=lambda: True))
