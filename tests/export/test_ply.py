"""The PLY sequence, read back by trimesh."""

import numpy as np
import trimesh

from backend.export import FORMATS
from backend.geometry.camera import unproject

from .conftest import FRAMES, LOST


def test_points_are_the_unprojected_depth(exact, tmp_path):
    FORMATS["ply"](exact, tmp_path / "out")
    truth = unproject(exact.depth, exact.intrinsics, exact.world_from_camera)
    for frame in range(FRAMES):
        cloud = trimesh.load(tmp_path / "out" / f"frame_{frame:04d}.ply")
        np.testing.assert_allclose(cloud.vertices, truth[frame].reshape(-1, 3), atol=1e-5)
        np.testing.assert_array_equal(cloud.colors[:, :3], exact.rgb[frame].reshape(-1, 3))


def test_confidence_and_motion_are_vertex_properties(exact, tmp_path):
    FORMATS["ply"](exact, tmp_path / "out")
    vertices = trimesh.load(tmp_path / "out" / "frame_0001.ply").metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(vertices["dynamic"], exact.dynamic[1].ravel())
    np.testing.assert_array_equal(vertices["confidence"], exact.confidence[1].ravel())
    assert vertices["dynamic"].any()
    assert not vertices["dynamic"].all()


def test_pixels_without_a_depth_make_no_point(exact, tmp_path):
    depth = exact.depth.copy()
    depth[0, :10], depth[0, 10:12] = 0, np.nan
    FORMATS["ply"](type(exact)(**{**vars(exact), "depth": depth}), tmp_path / "out")
    cloud = trimesh.load(tmp_path / "out" / "frame_0000.ply")
    assert len(cloud.vertices) == (64 - 12) * 96
    assert np.isfinite(cloud.vertices).all()


def test_the_numbers_of_files_are_frame_numbers(holed, tmp_path):
    report = FORMATS["ply"](holed, tmp_path / "out")
    assert report.files == tuple(f"frame_{i:04d}.ply" for i in range(FRAMES) if i != LOST)
