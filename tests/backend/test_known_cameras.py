"""Known cameras from plain files: which frame a pose belongs to, and files that are not what they should be."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.known_cameras import read_intrinsics, read_known_cameras, read_poses
from backend.wire import ClipInfo, UserError
from tests.worlds import hand_held

FRAMES = 6
CLIP = ClipInfo("a.mp4", (1920, 1080), Fraction(25), tuple(range(FRAMES)), tuple(n / 25 for n in range(FRAMES)))


def tum(poses: np.ndarray, times) -> str:
    rows = ["# timestamp tx ty tz qx qy qz qw"]
    for pose, time in zip(poses, times):
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        rows.append(" ".join(f"{x:.9f}" for x in (time, *pose[:3, 3], *quaternion)))
    return "\n".join(rows)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "path.txt"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_tum_file_gives_each_frame_its_pose(write):
    poses = hand_held(FRAMES)
    np.testing.assert_allclose(read_poses(write(tum(poses, CLIP.timestamps)), CLIP), poses, atol=1e-7)


def test_rows_find_their_frames_by_time_and_frames_without_one_are_unknown(write):
    poses = hand_held(FRAMES)
    times = [0.081, 0.155, 7.0]  # frames 2 and 4, about; and nothing of the clip
    known = read_poses(write(tum(poses[[2, 4, 5]], times)), CLIP)
    np.testing.assert_allclose(known[[2, 4]], poses[[2, 4]], atol=1e-7)
    assert np.isnan(known[[0, 1, 3, 5]]).all()


def test_of_several_rows_near_a_frame_the_nearest_counts(write):
    """A motion capture system at four times the frame rate, whose rows after a frame are not that frame's."""
    fine = hand_held(4 * FRAMES)
    known = read_poses(write(tum(fine, np.arange(4 * FRAMES) / 100)), CLIP)
    np.testing.assert_allclose(known, fine[::4], atol=1e-7)


def test_columns_may_be_separated_by_commas_and_tabs(write):
    text = tum(hand_held(FRAMES), CLIP.timestamps).replace(" ", ",\t")
    assert np.isfinite(read_poses(write(text), CLIP)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0 0 0 0 1", r"path\.txt has 7 numbers in a row instead of 8; give a TUM file"),
        ("0 1 2 3 0 0 0 2", "rotations that are not unit quaternions"),
        ("0 1 2 nan 0 0 0 1", "not unit quaternions"),
        ("1305031102.1 1 2 3 0 0 0 1", r"No pose of path\.txt is at the time .* seconds from 0 to 0\.2"),
        ("0 1 2 3 0 0 0 1\n0.04 1 2 3 0 0 0", "does not hold rows of equally many numbers"),
        ("# nothing but words", "does not hold rows"),
        ("", "does not hold rows"),
        ("time x y z", "cannot be read as numbers"),
    ],
)
def test_a_path_that_is_none_is_refused_with_the_reason(write, text, message):
    with pytest.raises(UserError, match=message):
        read_poses(write(text), CLIP)


def test_a_file_that_is_not_there_or_not_text_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"absent\.txt cannot be read"):
        read_poses(tmp_path / "absent.txt", CLIP)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(UserError, match=r"picture\.png cannot be read"):
        read_poses(tmp_path / "picture.png", CLIP)


def test_one_row_of_intrinsics_is_for_all_frames(write):
    found = read_intrinsics(write("# fx fy cx cy\n1500 1501 960 540\n"), FRAMES)
    np.testing.assert_array_equal(found, np.tile([1500.0, 1501, 960, 540], (FRAMES, 1)))


def test_a_matrix_is_read_as_such_in_one_row_or_three(write):
    expected = np.tile([1500.0, 1501, 960, 540], (FRAMES, 1))
    matrix = "1500 0 960\n0 1501 540\n0 0 1"
    np.testing.assert_array_equal(read_intrinsics(write(matrix), FRAMES), expected)
    np.testing.assert_array_equal(read_intrinsics(write(matrix.replace("\n", " ")), FRAMES), expected)


def test_a_row_for_each_frame_is_a_zoom(write):
    rows = np.stack([np.linspace(1500, 2000, FRAMES)] * 2 + [np.full(FRAMES, 960), np.full(FRAMES, 540)], axis=1)
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    np.testing.assert_array_equal(read_intrinsics(write(text), FRAMES), rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1500 960 540", r"has 1 rows of 3 numbers; give fx fy cx cy .* 6 frames"),
        ("1500 1500 960 540\n" * 5, "has 5 rows of 4 numbers"),
        ("0 1500 960 540", "focal length that is not positive"),
        ("1500 -1500 960 540", "focal length that is not positive"),
        ("1500 nan 960 540", "focal length that is not positive"),
    ],
)
def test_intrinsics_that_are_none_are_refused_with_the_reason(write, text, message):
    with pytest.raises(UserError, match=message):
        read_intrinsics(write(text), FRAMES)


def test_without_files_nothing_is_known_and_either_file_may_be_absent(write):
    assert read_known_cameras(CLIP, None, None) is None
    path, lens = write(tum(hand_held(FRAMES), CLIP.timestamps)), write("1500 1500 960 540", "lens.txt")
    assert read_known_cameras(CLIP, path, None).plate_intrinsics is None
    assert read_known_cameras(CLIP, None, lens).world_from_camera is None
    both = read_known_cameras(CLIP, path, lens)
    assert both.world_from_camera.shape == (FRAMES, 4, 4)
    assert both.plate_intrinsics.shape == (FRAMES, 4)
