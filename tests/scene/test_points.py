"""Points stand where their pixel saw them, in its colour, and only where something was measured."""

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.camera import pixel_centres, unproject
from blender_addon.scene.nodes import set_input
from blender_addon.scene.report import ImportReport
from blender_addon.wire.capture import PlateMap
from tests.scene.captures import imported, player_of, seen_at, shown, small


def test_points_land_on_their_plate_pixel_through_blenders_camera(tmp_path, scene):
    capture = replace(small(3, (1918, 1080)), plate_map=PlateMap(0.0256, 0.0302, 0.6, 0.3))
    player = player_of(imported(capture, tmp_path, scene))
    plate = capture.plate_map.to_plate(pixel_centres(*capture.processed_size)).reshape(-1, 2)
    for frame in range(3):
        scene.frame_set(1 + frame)
        found = seen_at(shown(player)["position"][::7], scene)
        assert np.abs(found - plate[::7]).max() < 0.05


def test_points_are_the_capture_s_own_world_points(tmp_path, scene):
    capture = small(3)
    player = player_of(imported(capture, tmp_path, scene, up_axis="none"))
    scene.frame_set(2)
    expected = unproject(capture.depth[1], capture.intrinsics[1], capture.world_from_camera[1]).reshape(-1, 3)
    # Blender's z is the capture's -y, its y the capture's z.
    assert shown(player)["position"] == pytest.approx(expected[:, [0, 2, 1]] * (1, 1, -1), abs=1e-4)


def test_colours_come_back_exactly(tmp_path, scene):
    capture = small(2)
    every_level = np.arange(capture.rgb.size).reshape(capture.rgb.shape).astype(np.uint8)
    player = player_of(imported(replace(capture, rgb=every_level), tmp_path, scene))
    for frame in (0, 1):
        scene.frame_set(1 + frame)
        assert np.array_equal(shown(player)["Color"][:, :3], every_level[frame].reshape(-1, 3))
        assert (shown(player)["Color"][:, 3] == 255).all()


def test_confidence_and_motion_come_back_exactly(tmp_path, scene):
    capture = small(2)
    confidence = np.random.default_rng(0).random(capture.depth.shape).astype(np.float16)
    player = player_of(imported(replace(capture, confidence=confidence), tmp_path, scene))
    scene.frame_set(2)
    assert np.array_equal(shown(player)["confidence"], confidence[1].astype(np.float32).ravel())
    assert np.array_equal(shown(player)["dynamic"], capture.dynamic[1].ravel())


def test_no_depth_makes_no_point(tmp_path, scene):
    capture = small(3)
    depth = capture.depth.copy()
    depth[1, :10] = 0
    depth[1, 10, 5] = np.nan
    depth[2] = 0
    collection = imported(replace(capture, depth=depth), tmp_path, scene)
    player = player_of(collection)
    counts = []
    for frame in (1, 2, 3):
        scene.frame_set(frame)
        counts.append(len(shown(player)["position"]))
    assert counts == [48 * 32, 48 * 22 - 1, 0]
    assert ImportReport.read(collection).points == sum(counts)


def test_a_frame_without_a_camera_has_no_points(tmp_path, scene):
    capture = small(3)
    cameras = capture.world_from_camera.copy()
    cameras[1] = np.nan
    player = player_of(imported(replace(capture, world_from_camera=cameras), tmp_path, scene))
    scene.frame_set(2)
    assert len(shown(player)["position"]) == 0
    scene.frame_set(3)
    assert len(shown(player)["position"]) == 48 * 32


def test_a_point_of_size_one_spans_one_pixel_of_its_camera(tmp_path, scene):
    capture = small(2)
    player = player_of(imported(capture, tmp_path, scene, point_size=1.0))
    scene.frame_set(2)
    points = unproject(capture.depth[1], capture.intrinsics[1], capture.world_from_camera[1]).reshape(-1, 3)
    distance = np.linalg.norm(points - capture.world_from_camera[1, :3, 3], axis=1)
    assert 2 * shown(player)["radius"] == pytest.approx(distance / capture.intrinsics[1, 0], rel=1e-4)
    before = shown(player)["radius"]
    set_input(player.modifiers[0], "Point Size", 3.0)
    assert shown(player)["radius"] == pytest.approx(3 * before, rel=1e-5)
