"""A localised plate is one more camera in the world of the capture: where the root goes it goes, and it alone comes."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Euler, Matrix, Vector

from backend.export.images import add_images
from backend.geometry.camera import project
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.identity import remember_job
from blender_addon.scene.images import timing_of
from blender_addon.scene.imported import PLATE, PLAYER, imported_in
from blender_addon.scene.plate_facts import PlateFacts, Reference
from blender_addon.scene.plates import (
    PlateOptions,
    import_plate,
    look_through,
    plate_cameras,
    plate_steps,
    remove_plate,
)
from blender_addon.scene.removal import take_out
from blender_addon.scene.solve_quality import SolveQuality
from blender_addon.wire.capture import ClipInfo, read_capture, write_capture
from blender_addon.wire.errors import UserError
from tests.localised import localised
from tests.scene.captures import imported as import_of_room
from tests.scene.captures import small
from tests.scene.test_update import census


@pytest.fixture
def room(tmp_path, scene):
    """The import of the room."""
    import_of_room(small(4), tmp_path / "room", scene, storage="split")
    return imported_in(scene)[0]


@pytest.fixture
def plate(tmp_path):
    """The folder of a plate that was localised in it; frame 2 of 4 was not found."""
    return write_capture(localised(4, lost=(2,)), tmp_path / "plate", [add_images])


def off_plate_px(camera, root, capture, scene) -> float:
    """How far on the plate, at most, Blender shows the capture's points from where its cameras see them."""
    points = np.array([(0.4, 0.2, 3.0), (-0.8, -0.5, 4.0), (1.3, 0.9, 4.8), (0.0, 1.1, 2.5)])
    width, height = capture.clip.plate_size
    facts, worst = PlateFacts.read(camera), 0.0
    look_through(camera, scene)
    for i in np.flatnonzero(capture.has_camera):
        scene.frame_set(int(facts.scene_frames[i]))
        truth, _ = project(points, capture.plate_intrinsics[i], capture.world_from_camera[i])
        depsgraph = bpy.context.evaluated_depsgraph_get()
        world = np.array(root.evaluated_get(depsgraph).matrix_world)
        for point, xy in zip(points @ world[:3, :3].T + world[:3, 3], truth):
            seen = world_to_camera_view(scene, camera.evaluated_get(depsgraph), Vector(point))
            worst = max(worst, float(np.hypot(seen.x * width - xy[0], (1 - seen.y) * height - xy[1])))
    return worst


@pytest.mark.parametrize("moved_first", [True, False])
def test_it_sees_the_captures_world_wherever_the_root_stands(scene, room, plate, moved_first):
    place = Matrix.LocRotScale(Vector((3, -2, 1.5)), Euler((0.3, -0.2, 1.1)), Vector((2.5,) * 3))
    if moved_first:
        room.root.matrix_world = place
        bpy.context.view_layer.update()
    camera = import_plate(plate, room, scene)
    if not moved_first:
        room.root.matrix_world = place
    assert camera.parent == room.root
    assert off_plate_px(camera, room.root, read_capture(plate), scene) < 0.05
    assert not [n for n in PlateFacts.read(camera).notes if "off the plate" in n]


def test_only_a_camera_comes_with_its_plate_and_its_facts(scene, room, plate):
    before, own = census(), scene.camera
    camera = import_plate(plate, room, scene)
    after = census()
    assert {kind for kind in after if after[kind] != before.get(kind)} == {"Object", "Camera", "Image", "Action"}
    assert after["Object"] - before["Object"] == 1
    assert camera.users_collection[0] == room.collection
    assert (scene.camera, room.camera) == (own, own), "the scene keeps its camera, the import its own"
    assert camera.data.sensor_width == 36
    assert camera.data.lens == pytest.approx(50 / 45 * 36)
    (background,) = camera.data.background_images
    assert background.image.name.startswith("plate Frames")  # the footage is not there
    facts = PlateFacts.read(camera)
    assert (facts.source, facts.matcher) == ("plate.mp4", "classic")
    assert facts.identity == room.root["kinora_identity"]
    assert facts.found.tolist() == [True, True, False, True]
    assert facts.inliers.tolist() == [100, 90, 3, 70]
    assert facts.error_px[[0, 1, 3]] == pytest.approx([0.4, 0.5, 0.7])
    assert np.isnan(facts.error_px[2])
    assert [facts.index(frame) for frame in (0, 1, 4, 9)] == [None, 0, 3, 3]
    assert SolveQuality.read(camera).error_px < 0.02


def test_flagged_frames_are_marked_under_its_name(scene, room, plate):
    camera = import_plate(plate, room, scene, PlateOptions(start_frame=11))
    assert {(m.name, m.frame) for m in scene.timeline_markers} == {
        (f"{camera.name}: Low Confidence", 12),
        (f"{camera.name}: No Camera", 13),
    }
    remove_plate(camera)
    assert not scene.timeline_markers


def test_it_begins_with_the_capture_or_where_one_says(scene, tmp_path, plate):
    folder = write_capture(small(4), tmp_path / "room")
    import_capture(folder, scene, ImportOptions(start_frame=101))
    room = imported_in(scene)[0]
    assert PlateFacts.read(import_plate(plate, room, scene)).scene_frames.tolist() == [101, 102, 103, 104]
    late = import_plate(plate, room, scene, PlateOptions(start_frame=50))
    assert PlateFacts.read(late).scene_frames.tolist() == [50, 51, 52, 53]
    assert timing_of(room, room.capture()).start_frame == 101
    assert (scene.frame_start, scene.frame_end) == (101, 104), "the range of the scene is the artist's"


def test_the_plates_own_points_come_when_they_are_asked_for(scene, room, plate):
    before = census()
    camera = import_plate(plate, room, scene, PlateOptions(points=True))
    clouds = [ob for ob in scene.objects if ob.type == "POINTCLOUD" and ob.get("kinora_root") == camera]
    assert clouds
    assert all(ob.parent == room.root for ob in clouds)
    assert len(room.objects(PLAYER)) == 1, "they are no points of the import"
    remove_plate(camera)
    assert census() == before


def test_a_still_is_seen_at_every_frame(scene, room, tmp_path):
    """One image of a numbered folder: Blender would go on to its neighbours."""
    image = bpy.data.images.new("still", 90, 60)
    for number in (1, 2):
        image.filepath_raw, image.file_format = str(tmp_path / f"still.{number:03d}.png"), "PNG"
        image.save()
    bpy.data.images.remove(image)
    capture = localised(1)
    clip = ClipInfo(**vars(capture.clip) | {"source": str(tmp_path / "still.002.png"), "kind": "images"})
    capture = replace(capture, clip=replace(clip, image_names=("still.002.png",)))
    camera = import_plate(write_capture(capture, tmp_path / "still", [add_images]), room, scene)
    (background,) = camera.data.background_images
    assert (background.source, background.image.source) == ("IMAGE", "FILE")
    assert background.image.filepath.endswith("still.002.png")
    for frame in (1, 30, 300):
        scene.frame_set(frame)
        assert off_plate_px(camera, room.root, capture, scene) < 0.05
    assert not scene.timeline_markers


def test_removing_it_leaves_what_was_there(scene, room, plate):
    before = census()
    remove_plate(import_plate(plate, room, scene))
    assert census() == before
    assert plate_cameras(room) == []


def test_removing_the_import_removes_its_plate_cameras(scene, room, plate):
    import_plate(plate, room, scene, PlateOptions(points=True))
    take_out(room)
    assert not scene.objects
    assert not [image for image in bpy.data.images if "kinora_folder" in image]
    assert not bpy.data.cameras
    assert not scene.timeline_markers


def test_update_existing_keeps_it(scene, room, plate, tmp_path):
    camera = import_plate(plate, room, scene)
    path = camera.data.background_images[0].image.filepath
    folder = write_capture(replace(small(5)), tmp_path / "again", [add_images])
    import_capture(folder, scene, ImportOptions(existing="update"))
    assert plate_cameras(imported_in(scene)[0]) == [camera]
    assert camera.data.background_images[0].image.filepath == path
    assert off_plate_px(camera, room.root, read_capture(plate), scene) < 0.05
    assert PlateFacts.read(camera).identity != room.root["kinora_identity"], "it was localised in the earlier capture"


def test_a_plate_of_another_capture_of_the_clip_says_so(scene, room, tmp_path):
    remember_job(room.root, "a" * 32, "backend")
    for job, told in (("a" * 32, False), ("b" * 32, True), ("", False)):
        camera = import_plate(write_capture(localised(2, job=job), tmp_path / f"plate {job}"), room, scene)
        assert any("localised in another capture" in note for note in PlateFacts.read(camera).notes) == told


def test_it_is_there_after_saving_and_loading(scene, room, plate, tmp_path):
    import_plate(plate, room, scene)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    scene, found = bpy.context.scene, imported_in(bpy.context.scene)[0]
    (camera,) = plate_cameras(found)
    assert camera.get("kinora_role") == PLATE
    assert PlateFacts.read(camera).inliers.tolist() == [100, 90, 3, 70]
    assert off_plate_px(camera, found.root, read_capture(plate), scene) < 0.05


def test_what_does_not_belong_is_refused_and_nothing_changes(scene, room, plate, tmp_path):
    before = census()
    for capture, words in (
        (small(3), "is no plate that was localised"),
        (localised(3, reference="street.mp4"), "localised in a capture of street.mp4"),
        (localised(3, lost=(0, 1, 2)), "found in no frame"),
    ):
        folder = write_capture(capture, tmp_path / words.replace(" ", "_"))
        with pytest.raises(UserError, match=words):
            import_plate(folder, room, scene)
    with pytest.raises(UserError, match="is not a capture"):
        import_plate(tmp_path / "nothing", room, scene)
    assert census() == before


def test_the_capture_of_a_plate_is_known_by_its_clip_whatever_computer_it_lies_on(scene, room):
    """A capture that was fetched names the clip of this computer, the plate's reference the backend's copy of it."""
    room.root["kinora_clip"] = "D:\\shots\\my room 1.mp4"
    assert Reference("my_room_1.mp4", "synthetic", "").may_be(room.root)
    assert not Reference("my_room_2.mp4", "synthetic", "").may_be(room.root)
    assert not Reference("my_room_1.mp4", "monst3r", "").may_be(room.root)
    details = {"localised": {"reference": {"source": "/scratch/clip/wall_1001.png", "engine": "synthetic"}}}
    room.root["kinora_clip"] = "/shots/wall_1017.png"
    assert Reference.of(details, {}).may_be(room.root), "one image of a sequence is as good as another"
    details["localised"]["reference"]["source"] = "/scratch/clip"
    assert Reference.of(details, {}).may_be(room.root), "a folder that was sent has no name of its own"
    remember_job(room.root, "a" * 32, "backend")
    assert Reference("otherwise.mp4", "", "a" * 32).may_be(room.root)


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"reference": None},
        {"reference": {"source": "room.mp4"}},
        {"reference": {"source": "room.mp4", "engine": "synthetic"}, "frames": [3]},
        {"reference": {"source": "room.mp4", "engine": "synthetic"}, "frames": [{"frame": 0, "inliers": "many"}]},
        [],
        7,
    ],
)
def test_what_a_damaged_plate_says_is_refused_in_words(scene, room, tmp_path, about):
    capture = localised(2)
    capture = replace(capture, shot=replace(capture.shot, details={"localised": about}))
    before = census()
    with pytest.raises(UserError, match="is damaged"):
        import_plate(write_capture(capture, tmp_path / "odd"), room, scene)
    assert census() == before


def test_given_up_at_any_step_it_leaves_nothing(scene, room, plate):
    before, steps = census(), 0
    while True:
        work = plate_steps(plate, room, scene, PlateOptions(points=True))
        try:
            for _ in range(steps + 1):
                next(work)
        except StopIteration:
            break
        work.close()
        assert census() == before, steps
        steps += 9
    assert steps >= 9
