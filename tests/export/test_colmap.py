"""The COLMAP model, read back by pycolmap."""

from dataclasses import replace

import numpy as np
import pytest

from backend.colmap import pycolmap
from backend.export import FORMATS

from .conftest import FRAMES, LOST


@pytest.fixture
def read_back(tmp_path):
    def read(capture) -> pycolmap.Reconstruction:
        FORMATS["colmap"](capture, tmp_path / "out")
        return pycolmap.Reconstruction(tmp_path / "out" / "sparse" / "0")

    return read


@pytest.mark.parametrize("name", ["exact", "holed"])
def test_points_project_on_their_observations(name, read_back, request):
    model = read_back(request.getfixturevalue(name))
    checked = 0
    for image in model.images.values():
        for keypoint in image.get_observation_points2D():
            pixel = image.project_point(model.point3D(keypoint.point3D_id).xyz)
            np.testing.assert_allclose(pixel, keypoint.xy, atol=1e-3)
            checked += 1
    assert checked == model.compute_num_observations() > 500
    assert model.compute_mean_reprojection_error() < 1e-3


def test_an_error_in_the_tracks_is_the_error_of_the_model(exact, read_back):
    """Observations moved by 3 and 4 plate pixels are 5 pixels off."""
    moved = replace(exact, tracks=replace(exact.tracks, plate_xy=exact.tracks.plate_xy + np.array([3.0, 4.0])))
    assert read_back(moved).compute_mean_reprojection_error() == pytest.approx(5.0, abs=1e-3)


def test_cameras_are_those_of_the_plate(exact, read_back):
    model = read_back(exact)
    camera = model.camera(1)
    assert model.num_cameras() == 1  # one lens: every frame has the same
    assert (camera.width, camera.height, camera.model.name) == (384, 256, "PINHOLE")
    # 0.9 * 96 processed pixels of focal length are four times as many on the plate.
    np.testing.assert_allclose(camera.params, [345.6, 345.6, 192, 128])
    for image_id, image in model.images.items():
        world_from_camera = image.cam_from_world().inverse().matrix()
        np.testing.assert_allclose(world_from_camera, exact.world_from_camera[image_id - 1][:3], atol=1e-9)


def test_a_zoom_gets_a_camera_for_every_frame(exact, read_back):
    zoom = exact.intrinsics * np.linspace(1, 1.5, FRAMES)[:, None] ** [1, 1, 0, 0]
    model = read_back(replace(exact, intrinsics=zoom))
    assert [model.camera(i + 1).focal_length_x for i in range(FRAMES)] == pytest.approx(4 * zoom[:, 0])


def test_images_are_named_like_the_frames_of_the_plate(exact, read_back):
    later = replace(exact.clip, frame_indices=tuple(range(100, 100 + 2 * FRAMES, 2)))
    names = {image.name for image in read_back(replace(exact, clip=later)).images.values()}
    assert names == {f"frame_{i:06d}.png" for i in (100, 102, 104, 106, 108)}


def test_images_of_a_sequence_keep_their_names(exact, read_back):
    files = tuple(f"plate.{1001 + i}.exr" for i in range(FRAMES))
    model = read_back(replace(exact, clip=replace(exact.clip, kind="images", image_names=files)))
    assert {image.name for image in model.images.values()} == set(files)


def test_a_frame_without_a_camera_has_no_image(holed, read_back):
    model = read_back(holed)
    assert set(model.images) == {i + 1 for i in range(FRAMES) if i != LOST}
    assert all(point.track.length() >= 2 for point in model.points3D.values())


def test_a_capture_without_tracks_gives_cameras_alone(exact, read_back):
    model = read_back(replace(exact, tracks=None))
    assert (model.num_images(), model.num_points3D()) == (FRAMES, 0)
