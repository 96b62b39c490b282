"""Blender's camera sees every point of the capture on its pixel of the plate."""

import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from backend.geometry.camera import project
from blender_addon.scene.camera import camera_agreement, make_camera, scene_framing
from blender_addon.scene.conventions import blender_fps, blender_lens
from blender_addon.scene.report import ImportReport
from blender_addon.wire.capture import PlateMap
from tests.scene.captures import camera_of, imported, seen_at, small

# (plate size, map to the 48 x 32 grid, fx, fy, cx, cy at the plate)
SHOTS = {
    "resized": ((854, 480), PlateMap(48 / 854, 32 / 480), (800, 800, 427, 240)),
    "portrait": ((1080, 1920), PlateMap(0.02, 0.016), (1700, 1700, 540, 960)),
    "square": ((1000, 1000), PlateMap(0.048, 0.032), (900, 900, 500, 500)),
    "odd crop": ((2048, 858), PlateMap(0.031, 0.0373, 7.75, 0.25), (1500, 1500, 1024, 429)),
    "off-centre": ((1920, 1080), PlateMap(0.025, 0.0296), (1600, 1600, 980, 500)),
    "fx above fy": ((1920, 1080), PlateMap(0.025, 0.0296), (1650, 1600, 960, 540)),
    "fx below fy": ((1080, 1920), PlateMap(0.02, 0.016), (1600, 1603.7, 530, 970)),
    "fx a hair above fy": ((3840, 2160), PlateMap(0.0125, 0.0148), (3000.3, 3000, 1920, 1080)),
}


def shot(name, frames=3):
    plate_size, plate_map, intrinsics = SHOTS[name]
    capture = small(frames, plate_size)
    plate = np.tile(np.array(intrinsics, float), (frames, 1))
    return replace(capture, plate_map=plate_map, intrinsics=plate_map.intrinsics_to_grid(plate))


@pytest.mark.parametrize("name", SHOTS)
def test_blender_sees_world_points_on_their_plate_pixel(name, tmp_path, scene):
    capture = shot(name)
    collection = imported(capture, tmp_path, scene, up_axis="auto")
    root_matrix = np.array(camera_of(collection).parent.matrix_basis)
    rng = np.random.default_rng(0)
    for frame in range(3):
        scene.frame_set(1 + frame)
        points = capture.world_from_camera[frame, :3, :3] @ (rng.uniform((-2, -2, 3), (2, 2, 6), (40, 3)).T)
        points = points.T + capture.world_from_camera[frame, :3, 3]
        expected, _ = project(points, capture.plate_intrinsics[frame], capture.world_from_camera[frame])
        found = seen_at(points @ root_matrix[:3, :3].T + root_matrix[:3, 3], scene)
        assert np.abs(found - expected).max() < 0.01
    assert ImportReport.read(collection).max_camera_error_px < 0.01


@pytest.mark.slow
def test_a_rendered_ball_is_where_the_capture_sees_its_centre(tmp_path, scene):
    capture = small(2, (480, 270))
    plate = np.tile([400.0, 396.0, 248.0, 131.0], (2, 1))  # off-centre, pixels that are not square
    capture = replace(capture, intrinsics=capture.plate_map.intrinsics_to_grid(plate))
    collection = imported(capture, tmp_path, scene, up_axis="none", show_plate=False)
    for ob in collection.objects:
        ob.hide_render = ob.type != "CAMERA"
    scene.frame_set(2)
    glow = bpy.data.materials.new("Glow")
    if bpy.app.version < (5, 0):
        glow.use_nodes = True
    glow.node_tree.nodes.clear()
    emission, output = (glow.node_tree.nodes.new(f"ShaderNode{kind}") for kind in ("Emission", "OutputMaterial"))
    glow.node_tree.links.new(emission.outputs[0], output.inputs["Surface"])
    wanted = np.array([[40.0, 30], [440, 40], [250, 140], [50, 240], [420, 230]])
    pose, root = capture.world_from_camera[1], np.array(camera_of(collection).parent.matrix_basis)
    rays = np.c_[(wanted - plate[0, 2:]) / plate[0, :2], np.ones(5)] * 4
    points = (rays @ pose[:3, :3].T + pose[:3, 3]) @ root[:3, :3].T + root[:3, 3]
    for point in points:
        bpy.ops.mesh.primitive_uv_sphere_add(segments=32, ring_count=16, radius=0.06, location=point)
        bpy.context.object.data.materials.append(glow)
    scene.render.engine, scene.cycles.samples = "CYCLES", 16
    scene.view_settings.view_transform = "Raw"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(tmp_path / "balls.png")
    bpy.ops.render.render(write_still=True)
    picture = iio.imread(scene.render.filepath)[..., :3].mean(axis=-1)
    y, x = np.mgrid[:270, :480] + 0.5
    for centre in wanted:
        weight = picture * (np.hypot(x - centre[0], y - centre[1]) < 15)
        found = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        assert np.hypot(*(found - centre)) < 0.1


def test_a_shift_with_the_wrong_sign_and_the_wrong_side_is_caught(tmp_path, scene):
    """What another importer does: x with the wrong sign, y as a part of the height."""
    capture = small(3, (1920, 1080))
    plate = np.tile([1600.0, 1600, 968, 548], (3, 1))  # 8 px off-centre
    capture = replace(capture, intrinsics=capture.plate_map.intrinsics_to_grid(plate))
    camera = camera_of(imported(capture, tmp_path, scene))
    frames = np.array([1, 2, 3])
    assert camera_agreement(camera, scene_framing(scene), capture, frames) < 0.01
    camera.data.shift_x, camera.data.shift_y = 968 / 1920 - 0.5, 548 / 1080 - 0.5
    assert camera_agreement(camera, scene_framing(scene), capture, frames) == pytest.approx(np.hypot(16, 6.2), abs=0.1)


def test_the_camera_of_a_long_shot_is_made_in_a_moment():
    capture = small(2)
    arrays = ("world_from_camera", "intrinsics", "rgb", "depth", "confidence", "dynamic")
    longer = {name: np.repeat(getattr(capture, name)[:1], 300, axis=0) for name in arrays}
    longer["intrinsics"] = longer["intrinsics"] * np.linspace(1, 2, 300)[:, None]
    clip = replace(capture.clip, frame_indices=tuple(range(300)), timestamps=tuple(np.arange(300) / 24))
    capture = replace(capture, clip=clip, frames=capture.frames[:1] * 300, tracks=None, **longer)
    spent = []
    for _ in range(3):
        begun = time.process_time()
        make_camera("camera", capture, np.arange(300))
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.05


def test_a_zoom_is_keyed_and_agrees(tmp_path, scene):
    capture = shot("resized", 4)
    zoom = np.array([[1.0], [1.1], [1.3], [1.2]]) * (1, 1, 0, 0) + (0, 0, 1, 1)
    capture = replace(capture, intrinsics=capture.intrinsics * zoom)
    collection = imported(capture, tmp_path, scene)
    data = camera_of(collection).data
    scene.frame_set(1)
    wide = data.lens
    scene.frame_set(3)
    assert data.lens == pytest.approx(1.3 * wide, rel=1e-5)
    assert ImportReport.read(collection).max_camera_error_px < 0.01


def test_the_published_error_notices_a_wrong_camera(tmp_path, scene):
    capture = shot("off-centre")
    camera = camera_of(imported(capture, tmp_path, scene))
    frames = np.array([1, 2, 3])
    camera.data.shift_x += 8 / 1920
    assert camera_agreement(camera, scene_framing(scene), capture, frames) == pytest.approx(8, abs=0.01)


def test_the_camera_stands_where_the_current_frame_has_it(tmp_path, scene):
    scene.frame_set(3)
    camera = camera_of(imported(small(4), tmp_path, scene))
    found = camera.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.copy()
    scene.frame_set(3)
    assert np.array(found) == pytest.approx(np.array(camera.matrix_world), abs=1e-6)


def test_a_scaled_and_turned_root_changes_no_pixel(tmp_path, scene):
    capture = shot("off-centre")
    camera = camera_of(imported(capture, tmp_path, scene))
    camera.parent.scale = (3.7, 3.7, 3.7)
    camera.parent.rotation_euler.z += 1.0
    assert camera_agreement(camera, scene_framing(scene), capture, np.array([1, 2, 3])) < 0.01


def test_quaternions_take_the_short_way_between_keys(tmp_path, scene):
    capture = small(8)
    turned = capture.world_from_camera.copy()
    for i, angle in enumerate(np.linspace(0, 2 * np.pi, 8)):  # through 180 degrees, where quaternions change sign
        c, s = np.cos(angle), np.sin(angle)
        turned[i, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    camera = camera_of(imported(replace(capture, world_from_camera=turned), tmp_path, scene))
    quaternions = []
    for frame in range(1, 9):
        scene.frame_set(frame)
        quaternions.append(np.array(camera.rotation_quaternion))
    assert all(a @ b > 0 for a, b in pairwise(quaternions))


def test_a_frame_without_a_camera_gets_no_key_and_is_listed(tmp_path, scene):
    capture = small(5)
    cameras = capture.world_from_camera.copy()
    cameras[2] = np.nan
    cameras[:, :3, 3] = np.arange(5)[:, None] * (1, 0, 0)
    collection = imported(replace(capture, world_from_camera=cameras), tmp_path, scene, start_frame=100, up_axis="none")
    report = ImportReport.read(collection)
    assert report.frames_without_camera == (102,)
    assert any("1 of 5 frames have no camera" in note for note in report.notes)
    scene.frame_set(102)
    assert camera_of(collection).location.x == pytest.approx(2, abs=1e-5)  # half way from 1 to 3


def test_clipping_lets_through_everything_measured(tmp_path, scene):
    capture = small(2)
    capture = replace(capture, depth=capture.depth * 1000, world_from_camera=np.tile(np.eye(4), (2, 1, 1)))
    data = camera_of(imported(capture, tmp_path, scene)).data
    assert data.clip_start < capture.depth.min()
    assert data.clip_end > capture.depth.max()


def test_the_sensor_that_the_user_stated_gives_the_lens_in_its_own_millimetres(tmp_path, scene):
    capture = replace(small(2), settings={"lens": {"focal_mm": 20.0, "sensor_width_mm": 24.0}})
    data = camera_of(imported(capture, tmp_path, scene)).data
    assert data.sensor_width == 24.0
    # The room's focal length is 0.9 of the width: 0.9 x 24 mm.
    assert data.lens == pytest.approx(0.9 * 24, rel=1e-5)


def test_square_pixels_stay_square_when_nobody_could_see_the_difference():
    lens = blender_lens(np.array([[3000.01, 3000, 1920, 1080]]), (3840, 2160), 36)
    assert lens.pixel_aspect == (1.0, 1.0)
    lens = blender_lens(np.array([[3003, 3000, 1920, 1080]]), (3840, 2160), 36)
    assert lens.pixel_aspect == pytest.approx((1.0, 1.001))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(Fraction(24), (24, 1.0)), (Fraction(24000, 1001), (24, 1.001)), (Fraction(30000, 1001), (30, 1.001))],
)
def test_frame_rates_are_kept_exactly(rate, expected):
    assert blender_fps(rate) == pytest.approx(expected, abs=1e-12)


def test_variable_frame_rates_follow_the_timestamps():
    capture = small(4, variable_frame_rate=True, timestamps=(0.0, 0.04, 0.25, 0.29))
    # at 24 fps: 0, 0.96, 6, 6.96
    assert capture.clip.clip_frames.tolist() == [0, 1, 6, 7]
