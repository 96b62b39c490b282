"""The committed demo clip and its truth agree with each other: pictures, cameras, depth and masks."""

from pathlib import Path

import av
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from backend.geometry.camera import project, rays, transform
from backend.geometry.trajectory import path_length
from backend.truth import read_truth

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "demo_clip"


@pytest.fixture(scope="module")
def truth():
    return read_truth(FOLDER / "truth.npz")


@pytest.fixture(scope="module")
def frames():
    with av.open(str(FOLDER / "clip.mp4")) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(np.float32)


def points_of(truth, frame):
    """(N, 2) plate pixels, (N, 3) world points and (N,) bool 'static' of the known depths of a frame."""
    seen = truth.depth[frame] > 0
    xy = truth.depth_pixels[seen]
    fx, fy, cx, cy = truth.intrinsics[frame]
    direction = np.stack([(xy[:, 0] - cx) / fx, (xy[:, 1] - cy) / fy, np.ones(len(xy))], axis=1)
    points = transform(truth.world_from_camera[frame], direction * truth.depth[frame][seen][:, None])
    return xy, points, ~truth.depth_moves[frame][seen]


def look_up(image, xy):
    """(N,) values of an image at edge-origin pixels, linear between pixel centres."""
    return map_coordinates(image, (xy[:, ::-1] - 0.5).T, order=1, mode="nearest")


def seen_again(truth, points, frame):
    """Where points land in `frame`, and which of them are its nearest surface there and do not move."""
    xy, z = project(points, truth.intrinsics[frame], truth.world_from_camera[frame])
    width, height = truth.plate_size
    ok = (z > 0) & (xy > 2).all(1) & (xy < (width - 2, height - 2)).all(1)
    i = np.clip(np.floor(np.nan_to_num(xy) / truth.depth_step).astype(int), 0, np.array(truth.depth.shape[:0:-1]) - 1)
    ok &= np.abs(truth.depth[frame][i[:, 1], i[:, 0]] / z - 1) < 0.02
    return xy, ok & ~truth.depth_moves[frame][i[:, 1], i[:, 0]]


def test_the_clip_is_what_the_readme_says_it_is(truth, frames):
    assert frames.shape == (48, *truth.masks.shape[1:])
    assert frames.shape[2] >= 640
    assert frames.shape[1] >= 360
    assert (FOLDER / "clip.mp4").stat().st_size < 2e6
    assert (FOLDER / "truth.npz").stat().st_size < 2e6
    assert 1.5 < path_length(truth.world_from_camera) < 3.0
    focal_mm = truth.intrinsics[0, 0] / truth.plate_size[0] * 36
    assert focal_mm == pytest.approx(28)


def test_something_moves_in_every_frame_and_never_fills_it(truth):
    share = truth.masks.mean(axis=(1, 2))
    assert share.min() > 0.03
    assert share.max() < 0.15


def test_depth_is_known_nearly_everywhere(truth):
    assert (truth.depth > 0).mean() > 0.97
    assert truth.depth[truth.depth > 0].min() > 0.5


@pytest.mark.parametrize(("start", "end"), [(0, 6), (20, 30), (47, 38)])
def test_static_pixels_look_the_same_where_depth_and_camera_say_they_go(truth, frames, start, end):
    xy, points, static = points_of(truth, start)
    there, seen = seen_again(truth, points, end)
    used = static & seen
    assert used.mean() > 0.5
    here = look_up(frames[start], xy[used])
    moved = np.abs(look_up(frames[end], there[used]) - here)
    stayed = np.abs(look_up(frames[end], xy[used]) - here)
    assert np.median(moved) < 6  # of 255: noise of the render and of the codec
    assert np.median(moved) < 0.4 * np.median(stayed)


def test_static_pixels_fit_best_exactly_where_the_truth_puts_them(truth, frames):
    """A quarter of a pixel off in any direction is worse: edge-origin pixels and exact poses, not nearly so."""
    xy, points, static = points_of(truth, 10)
    there, seen = seen_again(truth, points, 16)
    used = static & seen
    here = look_up(frames[10], xy[used])
    error = {
        shift: np.abs(look_up(frames[16], there[used] + shift) - here).mean()
        for shift in ((0, 0), (0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25))
    }
    assert min(error, key=error.get) == (0, 0)


def test_moving_pixels_do_not_stay_where_a_static_world_would_have_them(truth, frames):
    xy, points, static = points_of(truth, 20)
    there, _ = project(points, truth.intrinsics[26], truth.world_from_camera[26])
    inside = ((there > 2) & (there < np.array(truth.plate_size) - 2)).all(1)
    wrong = np.abs(look_up(frames[26], there) - look_up(frames[20], xy))
    assert np.median(wrong[~static & inside]) > 3 * np.median(wrong[static & inside])


def test_cameras_are_rigid_and_look_into_the_scene(truth):
    rotations = truth.world_from_camera[:, :3, :3]
    np.testing.assert_allclose(rotations @ np.swapaxes(rotations, 1, 2), np.tile(np.eye(3), (48, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    ahead = rays(truth.intrinsics[0] / 10, 64, 36)[18, 32]
    assert ahead == pytest.approx([0, 0, 1], abs=0.02)
    assert (rotations[:, 1, 1] > 0.9).all()  # the picture's down is the world's down
