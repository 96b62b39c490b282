"""A plate of a room is put into a capture of it, to millimetres: clips and images, lenses known and not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.camera import project
from backend.geometry.rigid import Similarity, invert_poses
from backend.known_cameras import KnownCameras
from backend.wire import LensSettings, PlateMap, UserError
from tests.localise.sets import (
    PLATE_FOCAL,
    PLATE_SIZE,
    ROOM_M,
    LocaliseWith,
    OracleMatcher,
    errors,
    first,
    held_out,
    lens_of,
    localised,
    reference,
)
from tests.oracle import as_clip, film_room, oracle_capture, travelling


@pytest.fixture(scope="module", params=["classic", "oracle"])
def engine(request):
    if request.param == "classic":
        return None
    true, capture = reference()
    return LocaliseWith(OracleMatcher(held_out(), true, capture))


# It is put where it belongs


def test_a_clip_with_a_known_lens(engine, tmp_path):
    plate, (_, capture) = held_out(), reference()
    found = localised(plate, capture, tmp_path, lens_of(plate), engine)
    away, turned = errors(found, plate.world_from_camera)
    assert np.median(away) < 0.005 * ROOM_M
    assert np.median(turned) < 0.3
    assert away.max() < 0.01 * ROOM_M
    assert np.allclose(found.plate_intrinsics, plate.intrinsics)
    assert found.metric
    assert all(f.registered and f.reprojection_error_px < 2 for f in found.frames)
    told = found.shot.details["localised"]
    assert told["reference"]["engine"] == "oracle"
    assert [row["frame"] for row in told["frames"]] == [0, 1, 2, 3]
    assert all(row["inliers"] > 50 for row in told["frames"])


def test_a_clip_with_an_unknown_lens_gets_one_focal_length(engine, tmp_path):
    plate, (_, capture) = held_out(), reference()
    found = localised(plate, capture, tmp_path, engine=engine)
    away, turned = errors(found, plate.world_from_camera)
    assert np.ptp(found.plate_intrinsics[:, 0]) < 1e-6
    assert found.plate_intrinsics[0, 0] == pytest.approx(PLATE_FOCAL, rel=0.02)
    assert found.shot.focal_source == "solved"
    assert 0 < found.shot.details["localised"]["focal_spread"] < 0.02
    assert np.median(away) < 0.01 * ROOM_M
    assert np.median(turned) < 0.5


def test_one_image(engine, tmp_path):
    plate, (_, capture) = first(held_out(), 1), reference()
    found = localised(plate, capture, tmp_path, engine=engine)
    away, turned = errors(found, plate.world_from_camera)
    assert found.frame_count == 1
    assert found.shot.kind == "locked"
    assert away[0] < 0.01 * ROOM_M
    assert turned[0] < 0.5
    assert found.plate_intrinsics[0, 0] == pytest.approx(PLATE_FOCAL, rel=0.02)


def test_its_depth_is_that_of_the_capture_seen_from_there(tmp_path):
    """Where the capture saw nothing there is nothing; what moves on the plate is not seen through."""
    plate, (_, capture) = first(held_out(), 2), reference()
    found = localised(plate, capture, tmp_path, lens_of(plate), grid=512)
    assert found.depth.shape == plate.depth.shape  # the plate is smaller than the grid asked for
    known = (found.depth > 0) & ~plate.masks
    assert known.mean() > 0.7
    off = np.abs(found.depth[known] / plate.depth[known] - 1)
    assert np.median(off) < 0.005
    assert np.mean(off > 0.05) < 0.05
    assert ((found.confidence > 0) == (found.depth > 0)).all()


def test_the_points_it_was_found_by_are_its_tracks(tmp_path):
    plate, (_, capture) = first(held_out(), 2), reference()
    found = localised(plate, capture, tmp_path, lens_of(plate))
    tracks = found.tracks
    for t in range(2):
        seen = tracks.frame == t
        xy, _ = project(tracks.points_world[tracks.point[seen]], found.plate_intrinsics[t], found.world_from_camera[t])
        off = np.linalg.norm(xy - tracks.plate_xy[seen], axis=1)
        assert off.mean() == pytest.approx(found.frames[t].reprojection_error_px, abs=0.05)
        assert seen.sum() == found.shot.details["localised"]["frames"][t]["inliers"]


def test_an_upright_plate(tmp_path):
    _, capture = reference()
    plate = held_out((240, 400), 0.9 * 400, 2)
    found = localised(plate, capture, tmp_path)
    away, turned = errors(found, plate.world_from_camera)
    assert away.max() < 0.01 * ROOM_M
    assert turned.max() < 0.5
    assert found.plate_intrinsics[0, 0] == pytest.approx(0.9 * 400, rel=0.02)


def test_a_cropped_plate_with_its_intrinsics(tmp_path):
    """The principal point of a crop is not its middle: given as fx fy cx cy, it is kept."""
    whole, (_, capture) = first(held_out(), 2), reference()
    left, top, right, bottom = 100, 10, 400, 210
    clip = as_clip(np.ascontiguousarray(whole.clip.frames[:, top:bottom, left:right]))
    lens = whole.intrinsics - (0, 0, left, top)
    known = KnownCameras(plate_intrinsics=lens)
    found = localised(replace(whole, clip=clip), capture, tmp_path, clip={"known_cameras": known})
    away, turned = errors(found, whole.world_from_camera)
    assert away.max() < 0.01 * ROOM_M
    assert turned.max() < 0.3
    assert np.allclose(found.plate_intrinsics, lens)


def test_a_larger_plate_is_shrunk_for_matching_and_keeps_its_pixels(tmp_path):
    """Cameras are those of the plate, also where the store holds it smaller."""
    plate, (_, capture) = first(held_out(), 2), reference()
    info = replace(plate.clip.info, plate_size=(800, 480))
    clip = replace(plate.clip, info=info, store_map=PlateMap(0.5, 0.5))
    found = localised(replace(plate, clip=clip), capture, tmp_path, LensSettings(focal_mm=1.2 * 36))
    assert np.allclose(found.plate_intrinsics[:, :2], 960)
    away, _ = errors(found, plate.world_from_camera)
    assert away.max() < 0.01 * ROOM_M


def test_a_near_frame_stands_for_the_search(tmp_path):
    plate, (_, capture) = first(held_out(), 1), reference()
    found = localised(plate, capture, tmp_path, lens_of(plate), near_frame=3, compare=1)
    assert found.shot.details["localised"]["frames"][0]["compared"] == [3]
    with pytest.raises(UserError, match="outside the capture"):
        localised(plate, capture, tmp_path, near_frame=6)


def test_a_zoom_gets_a_focal_length_for_each_frame(tmp_path):
    _, capture = reference()
    focal = np.array([1.1, 1.2, 1.35]) * 400
    cameras = travelling(3, far=(-0.8, 0.15, 0.9), turn=(0.2, -0.05, 0.03), seed=5)
    plate = film_room(cameras, PLATE_SIZE, focal)
    found = localised(plate, capture, tmp_path, zoom=True)
    assert np.allclose(found.plate_intrinsics[:, 0], focal, rtol=0.02)


def test_a_capture_of_a_network_with_its_errors(tmp_path):
    true, _ = reference()
    capture = oracle_capture(true)  # in a world of its own, with errors of depth, path and lens
    plate = held_out()
    found = localised(plate, capture, tmp_path, lens_of(plate))
    assert all(f.registered for f in found.frames)
    assert not found.metric
    grown = Similarity(scale=1.7)
    to_own = capture.world_from_camera[2] @ invert_poses(grown.apply_to_poses(true.world_from_camera[2]))
    expected = to_own @ grown.apply_to_poses(plate.world_from_camera)
    away, turned = errors(found, expected)
    assert np.median(away) < 0.02 * 1.7 * ROOM_M
    assert np.median(turned) < 1.5
