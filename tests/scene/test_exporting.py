"""Every export, read back: by Blender, by COLMAP, by trimesh, or by the arithmetic that its program documents."""

import json
import re
from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest
import trimesh
from mathutils import Euler, Matrix

from backend.colmap import pycolmap
from backend.export.images import add_images
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.exporting import FORMATS, Request, write
from blender_addon.scene.exporting.sampled import clouds_of, sample_camera, sample_points
from blender_addon.scene.imported import Imported
from blender_addon.wire.capture import PlateMap, write_capture
from blender_addon.wire.errors import UserError
from tests.scene.captures import seen_at, shown, small
from tests.worlds import as_capture, room

FRAMES = 4


def off_centre(plate=(96, 64)):
    """A capture whose grid is a crop of the plate and whose principal point is off the middle; the lens zooms."""
    world = room(FRAMES, 48, 32)
    capture = as_capture(world, plate)
    scale = plate[0] / 48
    zoom = np.linspace(1, 1.2, FRAMES)[:, None]
    intrinsics = capture.intrinsics * np.hstack([zoom, zoom, np.ones((FRAMES, 2))]) + (0, 0, 2.0, -1.5)
    return replace(capture, intrinsics=intrinsics, plate_map=PlateMap(1 / scale, 1 / scale))


@pytest.fixture
def made(tmp_path, scene) -> Imported:
    """An import whose root the artist has moved, turned and scaled by 3.7."""
    path = write_capture(off_centre(), tmp_path / "capture", [add_images])
    collection = import_capture(path, scene, ImportOptions(storage="split"))
    root = next(ob for ob in collection.objects if ob.type == "EMPTY")
    root.matrix_basis = (
        Matrix.Translation((1, -2, 0.5)) @ Euler((0.1, 0.2, 1.0)).to_matrix().to_4x4() @ root.matrix_basis
    )
    root.scale = [3.7] * 3
    return Imported(root)


def ask(made, scene, **options) -> Request:
    return Request(made, scene, first=1, last=FRAMES, **options)


def some_points(made, scene) -> np.ndarray:
    """Points that the camera sees."""
    points = np.concatenate([shown(ob)["position"] for ob in clouds_of(made)])
    return points[:: max(1, len(points) // 50)]


def project(points: np.ndarray, camera_from_world: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of a pinhole with OpenCV's axes."""
    x, y, z = (points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]).T
    return np.stack([lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]], axis=1)


def test_the_sampled_camera_sees_what_blender_renders(made, scene):
    scene.frame_set(2)
    camera = sample_camera(scene, made.camera, np.arange(1, FRAMES + 1))
    assert scene.frame_current == 2
    for number, frame in enumerate(camera.frames):
        scene.frame_set(int(frame))
        points = some_points(made, scene)
        seen = project(points, camera.camera_from_world[number], camera.intrinsics[number])
        np.testing.assert_allclose(seen, seen_at(points, scene), atol=2e-3)


def test_nuke_projects_as_blender_does(made, scene, tmp_path):
    """Nuke: focal over haperture of the width, the picture moved by -win_translate, the format's pixel aspect."""
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = 1.5, 1.0
    assert write(ask(made, scene), "NUKE", tmp_path / "camera") == []
    text = (tmp_path / "camera.nk").read_text()
    knobs = {k: v for k, v in re.findall(r"(?m)^ (\w+) (.*)$", text.partition("Camera2")[2])}
    key = re.compile(r"x\d+ (\S+?)(?=[ }])")
    move, turn, focal, window = (
        np.array([[float(v) for v in key.findall(c)] for c in re.findall(r"\{curve ([^}]*\})", knobs[name])]).T
        for name in ("translate", "rotate", "focal", "win_translate")
    )
    width, height = scene.render.resolution_x, scene.render.resolution_y
    assert knobs["rot_order"] == "ZXY"
    assert len(move) == FRAMES
    for number in range(FRAMES):
        scene.frame_set(number + 1)
        points = some_points(made, scene)
        x, y, z = np.radians(turn[number])
        rotation = Matrix.Rotation(y, 3, "Y") @ Matrix.Rotation(x, 3, "X") @ Matrix.Rotation(z, 3, "Z")
        y_up = points @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T
        local = (y_up - move[number]) @ np.array(rotation)
        flat = local[:, :2] / -local[:, 2:] * 2 * focal[number] / float(knobs["haperture"]) - window[number]
        pixels = (flat + np.array([1, height / width / 1.5])) * (width / 2, width / 2 * 1.5)
        np.testing.assert_allclose(pixels[:, 0], seen_at(points, scene)[:, 0], atol=5e-3)
        np.testing.assert_allclose(height - pixels[:, 1], seen_at(points, scene)[:, 1], atol=5e-3)


def test_a_chan_file_gives_the_pose_and_the_view_and_says_what_is_lost(made, scene, tmp_path):
    (loss,) = write(ask(made, scene), "CHAN", tmp_path / "camera.chan")
    assert "shift" in loss
    rows = np.loadtxt(tmp_path / "camera.chan")
    assert rows[:, 0].tolist() == [1, 2, 3, 4]
    camera = sample_camera(scene, made.camera, np.arange(1, FRAMES + 1))
    x, y, z = np.radians(rows[2, 4:7])
    rotation = Matrix.Rotation(y, 3, "Y") @ Matrix.Rotation(x, 3, "X") @ Matrix.Rotation(z, 3, "Z")
    back = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(back @ np.array(rotation), camera.world_from_camera[2, :3, :3], atol=1e-6)
    np.testing.assert_allclose(back @ rows[2, 1:4], camera.world_from_camera[2, :3, 3], atol=1e-6)
    np.testing.assert_allclose(np.tan(np.radians(rows[:, 7]) / 2), 32 / camera.intrinsics[:, 1], rtol=1e-6)


def test_json_has_every_number(made, scene, tmp_path):
    write(ask(made, scene), "JSON", tmp_path / "camera.json")
    document = json.loads((tmp_path / "camera.json").read_text())
    camera = sample_camera(scene, made.camera, np.arange(1, FRAMES + 1))
    np.testing.assert_allclose([f["fx_fy_cx_cy"] for f in document["frames"]], camera.intrinsics)
    np.testing.assert_allclose([f["world_from_camera"] for f in document["frames"]], camera.world_from_camera)


def test_the_ply_sequence_is_what_is_shown(made, scene, tmp_path):
    write(ask(made, scene), "PLY", tmp_path / "ply")
    assert len(list((tmp_path / "ply").iterdir())) == FRAMES
    scene.frame_set(3)
    cloud = trimesh.load(tmp_path / "ply" / "frame_00003.ply")
    expected = [shown(ob) for ob in clouds_of(made)]
    np.testing.assert_allclose(cloud.vertices, np.concatenate([e["position"] for e in expected]), atol=1e-5)
    np.testing.assert_array_equal(cloud.colors[:, :3], np.concatenate([e["Color"][:, :3] for e in expected]))


def test_a_glb_plays_the_same_points_in_a_y_up_world(made, scene, tmp_path):
    (loss,) = write(ask(made, scene), "GLB", tmp_path / "scene.glb")
    assert "lens" in loss
    gltf = trimesh.load(tmp_path / "scene.glb")
    static, moving = gltf.geometry["static"].vertices, gltf.geometry["frame_2"].vertices
    scene.frame_set(2)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    truth = sample_points(clouds_of(made), depsgraph).positions
    back = np.concatenate([moving, static]) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    assert len(back) == len(truth)
    np.testing.assert_allclose(np.sort(back, axis=0), np.sort(truth, axis=0), atol=1e-4)


def test_colmap_reads_the_model_and_sees_the_points_where_blender_does(made, scene, tmp_path):
    write(ask(made, scene), "COLMAP", tmp_path / "colmap")
    model = pycolmap.Reconstruction(tmp_path / "colmap" / "sparse" / "0")
    assert model.num_images() == FRAMES
    assert model.num_points3D() > 100
    image = next(i for i in model.images.values() if i.name == "rgb_0001.png")
    assert (tmp_path / "colmap" / "images" / image.name).is_file()
    scene.frame_set(2)
    points = some_points(made, scene)
    seen = np.array([image.project_point(p) for p in points.astype(float)])
    np.testing.assert_allclose(seen * 2, seen_at(points, scene), atol=5e-3)  # the plate is twice the grid


def test_nerfstudio_has_posed_images_masks_and_points(made, scene, tmp_path):
    write(ask(made, scene), "NERFSTUDIO", tmp_path / "nerf")
    document = json.loads((tmp_path / "nerf" / "transforms.json").read_text())
    row = document["frames"][1]
    scene.frame_set(2)
    points = some_points(made, scene)
    pose = np.array(row["transform_matrix"]) @ np.diag([1, -1, -1, 1.0])
    lens = np.array([row[k] for k in ("fl_x", "fl_y", "cx", "cy")])
    np.testing.assert_allclose(project(points, np.linalg.inv(pose), lens) * 2, seen_at(points, scene), atol=5e-3)
    mask = iio.imread(tmp_path / "nerf" / row["mask_path"])
    mask = mask if mask.ndim == 2 else mask[..., 0]
    np.testing.assert_array_equal(mask > 127, ~np.asarray(made.capture().dynamic[1]))
    assert len(trimesh.load(tmp_path / "nerf" / document["ply_file_path"]).vertices) > 100


@pytest.mark.parametrize("format", ["USD", "ALEMBIC", "FBX"])
def test_blender_reads_the_camera_back(format, made, scene, tmp_path):
    lost = write(ask(made, scene), format, tmp_path / "camera")
    truth = sample_camera(scene, made.camera, np.arange(1, FRAMES + 1))
    path = str(tmp_path / f"camera{FORMATS[format].suffix}")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y = truth.size
    scene.render.fps = 24
    if format == "USD":
        bpy.ops.wm.usd_import(filepath=path)
    elif format == "ALEMBIC":
        bpy.ops.wm.alembic_import(filepath=path, as_background_job=False)
    else:
        bpy.ops.import_scene.fbx(filepath=path, anim_offset=0)
    camera = next(ob for ob in scene.objects if ob.type == "CAMERA")
    back = sample_camera(scene, camera, truth.frames)
    np.testing.assert_allclose(back.world_from_camera, truth.world_from_camera, atol=5e-4)
    if format == "USD" or (format == "ALEMBIC" and bpy.app.version >= (5, 2)):
        assert lost == []
        np.testing.assert_allclose(back.intrinsics, truth.intrinsics, rtol=1e-4)
    if format == "ALEMBIC" and bpy.app.version < (5, 2):
        assert "lens" in lost[0]
        assert np.ptp(back.intrinsics[:, 0]) == 0
    if format == "USD":
        assert any(ob.type == "POINTCLOUD" for ob in scene.objects)


def test_fbx_says_that_it_loses_an_animated_shift(tmp_path, scene):
    capture = small(FRAMES)
    intrinsics = capture.intrinsics + np.linspace(0, 3, FRAMES)[:, None] * (0, 0, 1, 0)
    path = write_capture(replace(capture, intrinsics=intrinsics), tmp_path / "capture")
    collection = import_capture(path, scene)
    root = next(ob for ob in collection.objects if ob.type == "EMPTY")
    (loss,) = write(Request(Imported(root), scene, 1, FRAMES), "FBX", tmp_path / "camera.fbx")
    assert "shift" in loss


def test_exports_leave_the_scene_as_it_was(made, scene, tmp_path):
    scene.frame_set(3)
    before = {d.session_uid for d in bpy.data.user_map()}
    for name in FORMATS:
        write(ask(made, scene), name, tmp_path / name.lower())
    assert {d.session_uid for d in bpy.data.user_map()} == before
    assert (scene.frame_current, scene.frame_start, scene.frame_end) == (3, 1, FRAMES)


def test_what_cannot_be_written_is_said_and_leaves_nothing(made, scene, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UserError, match="not empty"):
        write(ask(made, scene), "PLY", tmp_path / "full")
    with pytest.raises(UserError, match="last frame"):
        write(Request(made, scene, first=3, last=2), "CHAN", tmp_path / "a.chan")
    bpy.data.objects.remove(made.camera)
    with pytest.raises(UserError, match=r"camera of .* was deleted"):
        write(ask(made, scene), "CHAN", tmp_path / "a.chan")
    made.folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="Relink"):
        write(ask(made, scene), "COLMAP", tmp_path / "colmap")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "moved"]
