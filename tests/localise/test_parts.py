"""The parts of localising, each by itself: poses, their joint fit, chance, rendering, likeness, jumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.camera import project
from backend.geometry.rigid import rotation_angles_deg
from backend.localise.classic import ClassicMatcher, features_of
from backend.localise.found import Picture
from backend.localise.pose import Pose, errors_px, find_pose
from backend.localise.reference import Reference
from backend.localise.refine import refine
from backend.localise.render import render
from backend.localise.sightings import Sightings
from backend.localise.similar import Likeness
from backend.localise.track import jumps
from backend.localise.verdict import cells, chance, narrow, seen_from_front, why_not
from tests.localise.sets import held_out, reference
from tests.worlds import as_capture, look, room

SIZE = (1920, 1080)
LENS = np.array([1800.0, 1800.0, 960.0, 540.0])


def scene(pose: np.ndarray, count: int = 300, noise_px: float = 0.5, wrong: float = 0.3, seed: int = 0) -> Sightings:
    """Points before a camera, where it sees them with noise, and some at random."""
    rng = np.random.default_rng(seed)
    xy = rng.random((count, 2)) * SIZE
    z = rng.uniform(2, 6, count)
    points = np.column_stack([(xy - LENS[2:]) / LENS[:2] * z[:, None], z]) @ pose[:3, :3].T + pose[:3, 3]
    seen = xy + rng.normal(0, noise_px, xy.shape)
    astray = rng.random(count) < wrong
    seen[astray] = rng.random((astray.sum(), 2)) * SIZE
    toward = pose[:3, 3] - points
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    return Sightings(seen, points, np.zeros(count, int), xy, toward)


POSE = look(0.3, -0.1, 0.05, (1.0, 0.2, -0.5))


# Poses


@pytest.mark.parametrize("focal_known", [True, False])
def test_a_pose_from_points_of_which_some_are_wrong(focal_known):
    s = scene(POSE)
    lens = LENS if focal_known else LENS * (0.7, 0.7, 1, 1)
    found = find_pose(s.plate_xy, s.points_world, lens, 5.0, 0, focal_known)
    assert np.linalg.norm(found.world_from_camera[:3, 3] - POSE[:3, 3]) < 0.01
    assert rotation_angles_deg(found.world_from_camera[:3, :3].T @ POSE[:3, :3]) < 0.2
    assert found.intrinsics[0] == pytest.approx(LENS[0], rel=1e-9 if focal_known else 0.01)
    assert 0.65 < found.inliers.mean() < 0.75


def test_pixels_that_are_not_square_stay_so():
    s = scene(POSE)
    squeezed = replace(s, plate_xy=s.plate_xy * (1, 0.5))
    found = find_pose(squeezed.plate_xy, s.points_world, LENS * (1, 0.5, 1, 0.5), 5.0, 0)
    assert np.linalg.norm(found.world_from_camera[:3, 3] - POSE[:3, 3]) < 0.01
    assert found.intrinsics[1] == pytest.approx(0.5 * LENS[1])


def test_few_points_and_points_at_random_make_no_pose_that_is_believed():
    s = scene(POSE)
    assert find_pose(s.plate_xy[:5], s.points_world[:5], LENS, 5.0, 0) is None
    astray = scene(POSE, wrong=1.0)
    found = find_pose(astray.plate_xy, astray.points_world, LENS, 11.0, 0)
    assert found is None or why_not(astray, found, SIZE, 11.0, True, 0)


def test_points_behind_the_camera_are_infinitely_far_off():
    behind = POSE[:3, 3] - POSE[:3, 2]
    assert errors_px(np.array([[960.0, 540.0]]), behind[None], LENS, POSE)[0] == np.inf


# The joint fit


def poses_of(path, focal=LENS[0], off=0.0, seed=3):
    rng = np.random.default_rng(seed)
    lens = LENS * (focal / LENS[0], focal / LENS[0], 1, 1)
    found = []
    for true in path:
        moved = true.copy()
        moved[:3, 3] += rng.normal(0, off, 3)
        found.append(Pose(moved, lens, np.ones(300, bool)))
    return found


def test_frames_that_share_a_lens_find_it_together():
    path = [look(0.1 * t, -0.1, 0.05, (0.2 * t, 0.1, -0.5)) for t in range(5)]
    seen = [scene(p, seed=t) for t, p in enumerate(path)]
    fit = refine(seen, poses_of(path, 1.05 * LENS[0], 0.05), 40.0, free_focal=True)
    focal = {p.intrinsics[0] for p in fit.poses}
    assert len(focal) == 1
    off = focal.pop() / LENS[0] - 1
    assert abs(off) < 0.002
    assert abs(off) < 4 * fit.focal_spread < 0.02
    for pose, true, spread in zip(fit.poses, path, fit.spread):
        away = np.linalg.norm(pose.world_from_camera[:3, 3] - true[:3, 3])
        assert away < 0.01
        assert away < 5 * np.linalg.norm(spread[3:]) < 0.05


def test_a_known_lens_is_kept_to_the_bit():
    path = [POSE]
    fit = refine([scene(POSE)], poses_of(path, off=0.05), 20.0, free_focal=False)
    assert (fit.poses[0].intrinsics == LENS).all()
    assert fit.focal_spread == 0
    assert np.linalg.norm(fit.poses[0].world_from_camera[:3, 3] - POSE[:3, 3]) < 0.005


# Verdicts


def test_chance_knows_how_many_points_are_many():
    assert chance(20, 30, SIZE, 10.0, True) < -20
    assert chance(5, 400, SIZE, 10.0, True) > 0
    assert chance(8, 60, SIZE, 10.0, False) > chance(8, 60, SIZE, 10.0, True)


def test_points_in_a_corner_or_on_a_line_hold_no_camera():
    rng = np.random.default_rng(0)
    corner = rng.random((100, 2)) * (200, 100)
    assert cells(corner, SIZE) < 4
    line = np.column_stack([np.linspace(0, 1900, 50), np.linspace(0, 1000, 50)]) + rng.normal(0, 5, (50, 2))
    assert narrow(line, SIZE)
    assert not narrow(rng.random((50, 2)) * SIZE, SIZE)
    s = scene(POSE, wrong=0)
    part = s.where((s.plate_xy < (200, 300)).all(axis=1) | (np.arange(300) < 0))
    many = Sightings(*(np.concatenate([getattr(part, n)] * 6) for n in Sightings.__dataclass_fields__))
    pose = Pose(POSE, LENS, np.ones(len(many), bool))
    assert "small part of the picture" in why_not(many, pose, SIZE, 5.0, True, 0)


def test_the_back_of_a_surface_is_not_seen():
    s = scene(POSE)
    assert seen_from_front(s, Pose(POSE, LENS, np.ones(300, bool))).all()
    other_side = POSE.copy()
    other_side[:3, 3] = POSE[:3, 3] + 10 * POSE[:3, 2]
    assert not seen_from_front(s, Pose(other_side, LENS, np.ones(300, bool))).any()


# Rendering


def test_a_capture_rendered_in_its_own_camera_is_its_depth():
    capture = as_capture(room(2, with_box=False))
    depth, confidence = render(Reference(capture), [0], capture.world_from_camera[0], capture.intrinsics[0], (96, 64))
    assert np.allclose(depth, capture.depth[0], rtol=1e-5)
    assert (confidence == 1).all()


def test_what_is_nearer_hides_what_is_behind_and_movers_are_left_out():
    """The pillar, seen from elsewhere, with the wall behind it in another frame that is rendered first."""
    world = room(6)
    capture = as_capture(world)
    depth, confidence = render(Reference(capture), [5, 0, 2], world.world_from_camera[2], world.intrinsics[2], (96, 64))
    still = ~world.dynamic[2]
    seen = (depth > 0) & still
    off = np.abs(depth[seen] / world.depth[2][seen] - 1)
    assert np.median(off) < 0.005
    assert np.mean(off > 0.05) < 0.04  # along edges, which are a pixel wide here
    assert ((depth > 0) == (confidence > 0)).all()


def test_points_behind_the_new_camera_or_beside_it_are_not_rendered():
    capture = as_capture(room(2, with_box=False))
    back = capture.world_from_camera[0] @ np.diag([-1.0, 1, -1, 1])
    depth, confidence = render(Reference(capture), [0, 1], back, capture.intrinsics[0], (96, 64))
    assert not depth.any()
    assert not confidence.any()


def test_points_between_pixels_lie_on_their_surface():
    capture = as_capture(room(2, with_box=False))
    own = Reference(capture)
    xy = np.random.default_rng(0).random((500, 2)) * (96, 64)
    points, known = own.points(0, xy)
    seen, _ = project(points, capture.intrinsics[0], capture.world_from_camera[0])
    assert np.allclose(seen[known], xy[known], atol=1e-6)
    assert 0.8 < known.mean() < 1
    # Each point is on a wall, the floor, the ceiling or the pillar.
    x, y, z = points[known].T
    planes = np.abs([x - 3, x + 3, y - 1.2, y + 1.8, z - 5, z - 3.8]).min(axis=0)
    assert np.quantile(planes, 0.95) < 0.01  # across a corner of the room it is cut


# Likeness


def test_views_that_look_alike_are_ranked_first():
    _, capture = reference()
    classic = ClassicMatcher()
    views = [classic.features(Picture(t, np.asarray(capture.rgb[t]))) for t in range(6)]
    likeness = Likeness(views, seed=0)
    assert likeness.to(views[4]).argmax() == 4
    assert likeness.to(views[4])[4] == pytest.approx(1, abs=1e-5)
    noise = features_of(np.random.default_rng(0).integers(0, 255, (192, 320, 3)).astype(np.uint8))
    assert likeness.to(noise).max() < likeness.to(features_of(held_out().clip.frames[0])).max()


def test_a_picture_without_features_is_like_nothing():
    flat = features_of(np.full((100, 100, 3), 77, np.uint8))
    assert len(flat.xy) == 0
    likeness = Likeness([flat, features_of(held_out().clip.frames[0])], seed=0)
    assert (likeness.to(flat) == 0).all()


# Jumps


def path_with(jump: dict[int, float]):
    path = [look(0.02 * t, 0, 0, (0.05 * t + jump.get(t, 0.0), 0, 0)) for t in range(9)]
    seen = [scene(p, noise_px=0.2, wrong=0, seed=t) for t, p in enumerate(path)]
    return seen, [Pose(p, LENS, np.ones(300, bool)) for p in path], np.arange(9) / 24


def test_a_frame_that_jumps_is_told_and_its_neighbours_are_not():
    assert not jumps(*path_with({}), 10.0).any()
    assert np.flatnonzero(jumps(*path_with({4: 0.3}), 10.0)).tolist() == [4]
    seen, poses, times = path_with({2: 0.3, 6: -0.3})
    poses[4] = None
    assert np.flatnonzero(jumps(seen, poses, times, 10.0)).tolist() == [2, 6]


@pytest.mark.parametrize("end", [0, 8])
def test_a_jump_at_an_end_of_the_clip_is_told(end):
    assert np.flatnonzero(jumps(*path_with({end: 0.5}), 10.0)).tolist() == [end]
