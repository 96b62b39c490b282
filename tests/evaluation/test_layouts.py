"""Benchmarks' folders as they are distributed: pictures, depth and cameras are found, what is not there is said."""

import re

import cv2
import numpy as np
import pytest

from backend.evaluation import layouts
from backend.evaluation.benchmarks import BENCHMARKS, SUITES, chosen_takes
from backend.wire import UserError
from tests.evaluation.benchmark_folders import WRITE
from tests.worlds import film, hand_held, square_intrinsics

#: The lens that 7-Scenes states, for pictures of this width.
WORLD = film(hand_held(12), square_intrinsics(585 * 64 / 640, 64, 48, 12), 64, 48)
#: The frames of that world which each layout has something to say of, and by how much depth is rounded, in metres.
KEPT = {name: list(range(12)) for name in BENCHMARKS} | {"kitti": list(range(4, 12)), "tum": [0, *range(2, 12)]}
STEP = {"nyu": 1e-3, "sintel": 0, "bonn": 2e-4, "kitti": 1 / 256, "7scenes": 1e-3, "nrgbd": 1e-3}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_layout_gives_the_pictures_depth_and_cameras_of_its_frames(tmp_path, name):
    WRITE[name](tmp_path, WORLD)
    takes = getattr(layouts, BENCHMARKS[name].layout)(tmp_path)
    (take,) = (read() for read in takes.values())
    assert list(takes) == [take.name]
    assert len(take.frames) == len(KEPT[name])
    for frame, k in zip(take.frames, KEPT[name]):
        seen = cv2.imread(str(frame.image))[..., ::-1].astype(float)
        assert np.abs(seen - WORLD.rgb).mean((1, 2, 3)).argmin() == k  # some are JPEG, so not exactly
        if frame.depth:
            found, true = frame.depth(), WORLD.depth[k]
            known = found > 0
            assert known.mean() > 0.99
            assert np.abs(found - true)[known].max() <= STEP[name] / 2 + 1e-6
        if frame.pose:
            lost = name == "scannet" and k == 3
            expected = np.full((4, 4), np.nan) if lost else WORLD.world_from_camera[k]
            np.testing.assert_allclose(frame.pose(), expected, atol=1e-6)
    if "reconstruction" in BENCHMARKS[name].suites:
        assert take.intrinsics == pytest.approx(tuple(WORLD.intrinsics[0]))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_suite_finds_the_part_of_the_truth_that_it_needs(tmp_path, name):
    WRITE[name](tmp_path, WORLD)
    for suite in BENCHMARKS[name].suites:
        reads = layouts.__dict__[BENCHMARKS[name].layout](tmp_path).values()
        frames = [frame for read in reads for frame in read().frames]
        assert suite in SUITES
        assert all(frame.depth for frame in frames) or suite == "pose"
        assert all(frame.pose for frame in frames) or "depth" in suite


def test_depth_of_another_time_is_no_depth(tmp_path):
    WRITE["bonn"](tmp_path, WORLD)
    listed = tmp_path / "rgbd_bonn_balloon2" / "depth.txt"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(lines[:3] + lines[4:]))  # without that of frame 1
    take = layouts.bonn(tmp_path)["balloon2"]()
    assert [k for k, frame in enumerate(take.frames) if frame.depth is None] == [1]


def test_depth_projected_into_the_colour_camera_goes_before_the_raw_one(tmp_path):
    WRITE["7scenes"](tmp_path, WORLD)
    for path in (tmp_path / "chess" / "seq-03").glob("*.depth.png"):
        path.rename(path.with_name(path.name.replace(".depth.", ".depth.proj.")))
    take = layouts.seven_scenes(tmp_path)["chess/seq-03"]()
    assert take.intrinsics[0] == pytest.approx(525 * 64 / 640)
    assert (take.frames[0].depth()[1:] > 0).all()


def test_papers_frames_are_taken_unless_others_are_asked_for(tmp_path):
    WRITE["scannet"](tmp_path, WORLD)
    (read,) = chosen_takes(tmp_path, "scannet", "pose").values()
    assert [frame.image.stem for frame in read().frames] == ["0", "3", "6", "9"]
    (read,) = chosen_takes(tmp_path, "scannet", "pose", every=5, most=2).values()
    assert [frame.image.stem for frame in read().frames] == ["0", "5"]


def test_sequences_that_papers_take_and_the_folder_lacks_fail_one_by_one(tmp_path):
    WRITE["sintel"](tmp_path, WORLD)
    WRITE["sintel"](tmp_path, WORLD, "alley_1")  # of which no camera path is compared
    reads = chosen_takes(tmp_path, "sintel", "pose")
    assert len(reads) == 14
    assert len(reads["alley_2"]().frames) == 12
    with pytest.raises(UserError, match="There is no sequence temple_3"):
        reads["temple_3"]()
    assert list(chosen_takes(tmp_path, "sintel", "video-depth")) == ["alley_1", "alley_2"]


def test_bonn_is_taken_from_the_thirtieth_frame_on(tmp_path):
    WRITE["bonn"](tmp_path, WORLD)
    with pytest.raises(UserError, match="balloon2 has no frame from number 30 on"):
        chosen_takes(tmp_path, "bonn", "video-depth", ("balloon2",))["balloon2"]()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_that_is_none_is_one_sentence(tmp_path, name):
    suite = next(iter(BENCHMARKS[name].suites))
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"^There is no .*; give the folder that"):
            chosen_takes(root, name, suite)


@pytest.mark.parametrize(
    ("name", "remove"),
    [
        ("nyu", "sync_depth_00003.png"),
        ("sintel", "frame_0004.dpt"),
        ("sintel", "frame_0004.cam"),
        ("kitti", "0000000007.png"),
        ("scannet", "5.txt"),
        ("7scenes", "frame-000003.pose.txt"),
        ("nrgbd", "depth3.png"),
        ("tum", "groundtruth.txt"),
    ],
)
@pytest.mark.parametrize("torn", [False, True])
def test_a_file_that_is_missing_or_torn_is_one_sentence(tmp_path, name, remove, torn):
    WRITE[name](tmp_path, WORLD)
    path = next(p for p in tmp_path.rglob(remove) if "image_02/data" not in p.as_posix())
    path.write_bytes(path.read_bytes()[:9]) if torn else path.unlink()
    (read,) = getattr(layouts, BENCHMARKS[name].layout)(tmp_path).values()
    if name == "kitti" and not torn:
        assert len(read().frames) == 7  # its depth says which frames there are
        return
    with pytest.raises(UserError, match=re.escape(remove)) as told:
        [part() for frame in read().frames for part in (frame.depth, frame.pose) if part]
    assert "\n" not in str(told.value)


def test_a_suite_that_a_benchmark_does_not_serve_names_those_that_it_does(tmp_path):
    with pytest.raises(UserError, match="ScanNet is no benchmark of video-depth; choose pose"):
        chosen_takes(tmp_path, "scannet", "video-depth")
