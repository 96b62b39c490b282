"""Truth in plain files finds the frames of the capture that it belongs to, or is refused in a sentence."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from backend.evaluation.files import read_depth, read_masks, read_poses
from backend.export.trajectory import continuous_quaternions
from backend.wire import ClipInfo, UserError
from tests.worlds import hand_held

PATH = hand_held(8)
DEPTH = np.random.default_rng(0).uniform(1, 5, (8, 6, 9)).astype(np.float32)


def clip(*frames: int, fps: int = 24) -> ClipInfo:
    return ClipInfo("clip.mp4", (9, 6), Fraction(fps), frames, tuple(t / fps for t in frames))


def tum(path, times, poses):
    np.savetxt(path, np.column_stack([times, poses[:, :3, 3], continuous_quaternions(poses[:, :3, :3])]))
    return path


def test_poses_belong_to_the_frames_whose_times_they_bear(tmp_path):
    found, how = read_poses(tum(tmp_path / "p.txt", np.arange(8) / 24, PATH), clip(1, 3, 5))
    assert how == "time"
    np.testing.assert_allclose(found, PATH[[1, 3, 5]], atol=1e-9)


def test_a_frame_without_a_pose_is_nan(tmp_path):
    some = [0, 1, 3, 4, 6]
    found, how = read_poses(tum(tmp_path / "p.txt", np.array(some) / 24, PATH[some]), clip(*range(7)))
    assert how == "time"
    assert np.flatnonzero(np.isnan(found[:, 0, 0])).tolist() == [2, 5]


@pytest.mark.parametrize(
    ("frames", "rows", "how"), [((1, 3, 5), 3, "order"), ((1, 3, 5), 8, "frame number")], ids=["order", "number"]
)
def test_times_that_tell_nothing_leave_the_count(tmp_path, frames, rows, how):
    """As in files that count 0, 1, 2, ... in place of seconds."""
    found, said = read_poses(tum(tmp_path / "p.txt", np.arange(rows), PATH[:rows]), clip(*frames))
    assert said == how
    np.testing.assert_allclose(found, PATH[:3] if how == "order" else PATH[[1, 3, 5]], atol=1e-9)


def test_a_path_that_fits_no_frames_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither in number nor in time"):
        read_poses(tum(tmp_path / "p.txt", np.arange(4), PATH[:4]), clip(*range(7)))
    for text in ("", "1 2 3\n", "a b c\n", "0 0 0 0 0 0 0 5\n", "0 0 0 nan 0 0 0 1\n"):
        (tmp_path / "p.txt").write_text(text)
        with pytest.raises(UserError, match=r"p\.txt"):
            read_poses(tmp_path / "p.txt", clip(0, 1))
    with pytest.raises(UserError):
        read_poses(tmp_path / "missing.txt", clip(0, 1))


def test_depth_comes_as_an_array_or_as_a_file_a_frame(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH)
    np.savez(tmp_path / "d.npz", depth=DEPTH, other=1)
    for kind in ("npy", "png"):
        (tmp_path / kind).mkdir()
    for t in range(8):
        np.save(tmp_path / "npy" / f"{t:04d}.npy", DEPTH[t])
        cv2.imwrite(str(tmp_path / "png" / f"{t:04d}.png"), np.uint16(np.round(DEPTH[t] * 5000)))
    for name in ("d.npy", "d.npz", "npy", "png"):
        pictures = read_depth(tmp_path / name, clip(1, 3, 5), scale=5000)
        assert pictures.count == 3
        np.testing.assert_allclose(pictures.read(2), DEPTH[5], atol=2e-4)
    with pytest.raises(UserError, match="needs a scale"):
        read_depth(tmp_path / "png", clip(1, 3, 5)).read(0)


def test_depth_that_is_no_positive_number_is_unknown(tmp_path):
    depth = DEPTH[:1].copy()
    depth[0, 0, :4] = np.nan, np.inf, -1, 0
    np.save(tmp_path / "d.npy", depth)
    found = read_depth(tmp_path / "d.npy", clip(0)).read(0)
    assert found[0, :4].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(found[1:], DEPTH[0, 1:])


def test_masks_are_images_in_which_what_moves_is_not_black(tmp_path):
    for t in range(3):
        picture = np.zeros((6, 9, 3), np.uint8)
        picture[t, :, 2] = 128  # a palette's red
        cv2.imwrite(str(tmp_path / f"{t}.png"), picture)
    found = read_masks(tmp_path, clip(0, 2))
    assert [np.flatnonzero(found.read(k).all(1)).tolist() for k in range(2)] == [[0], [2]]


def test_too_few_files_and_no_files_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH[:4])
    with pytest.raises(UserError, match="has 4 frames"):
        read_depth(tmp_path / "d.npy", clip(1, 3, 5))
    np.save(tmp_path / "flat.npy", DEPTH[0])
    with pytest.raises(UserError, match="frames x height x width"):
        read_depth(tmp_path / "flat.npy", clip(0))
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(UserError, match="no NumPy array"):
        read_depth(tmp_path / "text.npz", clip(0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no"):
        read_masks(tmp_path / "empty", clip(0))
    with pytest.raises(UserError, match="no folder"):
        read_masks(tmp_path / "nowhere", clip(0))
