"""Update Existing: the capture's contents are new, everything that the artist did stays, and nothing is left over."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from backend.export.images import add_images
from blender_addon.scene import ImportOptions, ImportReport, import_capture
from blender_addon.scene import update as update_module
from blender_addon.scene.changes import own
from blender_addon.scene.imported import CAMERA, LINKED, PLAYER, PROJECTED, STATIC, Imported, imported_in
from blender_addon.scene.keys import keyed
from blender_addon.scene.nodes import find_modifier, get_input, input_names, set_input
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import convert_storage
from blender_addon.scene.update import _Swap
from blender_addon.wire.capture import Capture, EngineStamp, write_capture
from blender_addon.wire.errors import Cancelled, UserError
from tests.scene.captures import camera_of, player_of, shown, small, static_of


def written(capture: Capture, folder: Path) -> Path:
    return write_capture(capture, folder, [add_images])


def of_another_engine(frames: int, scale: float = 2.0) -> Capture:
    """The same clip with more or other frames, in a world `scale` times as large."""
    capture = small(frames)
    world_from_camera = capture.world_from_camera.copy()
    world_from_camera[:, :3, 3] *= scale
    return replace(
        capture,
        world_from_camera=world_from_camera,
        depth=capture.depth * np.float32(scale),
        engine=EngineStamp("monst3r", "2.1", "CC BY-NC-SA 4.0", False),
        confidence_default=0.25,
    )


def updated(folder: Path, scene, **options) -> Imported:
    import_capture(folder, scene, ImportOptions(**{"existing": "update", "storage": "frames"} | options))
    (found,) = imported_in(scene)
    return found


def census() -> Counter:
    """How many datablocks of each kind the file holds."""
    return Counter(d.bl_rna.identifier for d in bpy.data.user_map())


@pytest.fixture
def first(tmp_path, scene) -> Imported:
    """An import of four frames."""
    import_capture(written(small(4), tmp_path / "first"), scene, ImportOptions(storage="frames"))
    (found,) = imported_in(scene)
    return found


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_an_updated_import_shows_what_a_new_one_would(storage, first, tmp_path, scene):
    path = written(of_another_engine(6), tmp_path / "second")
    found = updated(path, scene, storage=storage)
    other = bpy.data.scenes.new("Other")
    fresh = import_capture(path, other, ImportOptions(storage=storage))
    assert found.root["kinora_engine"] == "monst3r"
    assert found.folder == path
    assert ImportReport.read(found.collection) == ImportReport.read(fresh)
    assert (scene.frame_start, scene.frame_end) == (1, 6)
    for frame in (1, 3, 6):
        scene.frame_set(frame)
        mine = shown(player_of(found.collection)), np.array(found.camera.matrix_basis)
        bpy.context.window.scene = other
        other.frame_set(frame)
        theirs = shown(player_of(fresh)), np.array(camera_of(fresh).matrix_basis)
        assert np.allclose(mine[1], theirs[1], atol=1e-6)
        assert mine[0].keys() == theirs[0].keys()
        assert len(mine[0]["position"]) > 100
        for name in mine[0].keys() - {"position"}:
            assert np.allclose(mine[0][name], theirs[0][name], atol=1e-6), name
        bpy.context.window.scene = scene
    if storage == "split":
        assert len(shown(static_of(found.collection))["position"]) > 100


def test_what_the_artist_did_stays(first, tmp_path, scene):
    root, camera, (player,) = first.root, first.camera, first.objects(PLAYER)
    root.matrix_world = Matrix.Translation((1, 2, 3)) @ Matrix.Scale(2.5, 4) @ root.matrix_world
    player.name, camera.name = "Street", "Shot Camera"
    elsewhere = bpy.data.collections.new("Elsewhere")
    scene.collection.children.link(elsewhere)
    elsewhere.objects.link(player)
    first.collection.objects.unlink(player)
    first.collection.name = "Mine"
    player.hide_render = True
    material = bpy.data.materials.new("Toon")
    set_input(player.modifiers[0], "Material", material)
    set_input(player.modifiers[0], "Point Size", 4.0)
    player.modifiers.new("Bend", "NODES")
    prop = bpy.data.objects.new("Prop", None)
    scene.collection.objects.link(prop)
    prop.parent = player
    camera.data.dof.use_dof, camera.data.dof.focus_distance = True, 3.25
    camera.data.clip_end = 12345
    camera.constraints.new("LIMIT_LOCATION").max_x = 7
    root.driver_add("empty_display_size").driver.expression = "0.5"
    curve = keyed(camera, "location")[0]
    curve.modifiers.new("NOISE")
    placed = root.matrix_world.copy()

    found = updated(written(of_another_engine(6), tmp_path / "second"), scene)
    assert found.root == root
    assert root.matrix_world == placed
    assert found.camera == camera
    assert found.objects(PLAYER) == [player]
    assert (player.name, camera.name) == ("Street", "Shot Camera")
    assert list(player.users_collection) == [elsewhere]
    assert found.collection.name == "Mine"
    assert player.hide_render
    assert [m.name for m in player.modifiers][1:] == ["Bend"]
    assert get_input(player.modifiers[0], "Material") == material
    assert get_input(player.modifiers[0], "Point Size") == 4
    assert get_input(player.modifiers[0], "Min Confidence") == 0.25, "untouched: what the new capture recommends"
    assert prop.parent == player
    assert camera.data.dof.use_dof
    assert camera.data.dof.focus_distance == 3.25
    assert camera.data.clip_end == 12345
    assert camera.constraints[0].max_x == 7
    assert root.animation_data.drivers[0].driver.expression == "0.5"
    assert [m.type for m in keyed(camera, "location")[0].modifiers] == ["NOISE"]
    assert len(keyed(camera, "location")[0].keyframe_points) == 6


def test_an_edited_material_stays_and_its_copy_goes(first, tmp_path, scene):
    (player,) = first.objects(PLAYER)
    material = get_input(player.modifiers[0], "Material")
    material.node_tree.nodes.new("ShaderNodeEmission").name = "Mine"
    updated(written(small(4), tmp_path / "second"), scene)
    assert get_input(player.modifiers[0], "Material") == material
    assert "Mine" in material.node_tree.nodes
    assert list(bpy.data.materials) == [material]


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_updating_again_and_again_leaves_nothing_over(storage, first, tmp_path, scene):
    path = written(of_another_engine(6), tmp_path / "second")
    updated(path, scene, storage=storage)
    names = sorted(d.name_full for d in bpy.data.user_map())
    counted = census()
    for _ in range(3):
        updated(path, scene, storage=storage)
        assert census() == counted
    assert sorted(d.name_full for d in bpy.data.user_map()) == names
    assert not [name for name in names if name.startswith("room.0")]


def test_fewer_frames_and_back(first, tmp_path, scene):
    counted = census()
    updated(written(small(2), tmp_path / "second"), scene)
    assert scene.frame_end == 2
    assert census()["PointCloud"] == counted["PointCloud"] - 2
    updated(tmp_path / "first", scene)
    assert scene.frame_end == 4
    assert census() == counted


def test_points_change_their_storage_and_back(first, tmp_path, scene):
    counted = census()
    found = updated(tmp_path / "first", scene, storage="split")
    (static,) = found.objects(STATIC)
    assert static.name == "room Static"
    assert static.parent == found.root
    held = bpy.data.objects.new("Prop", None)
    scene.collection.objects.link(held)
    held.parent = static
    bpy.context.view_layer.update()
    place = held.matrix_world.copy()
    found = updated(tmp_path / "first", scene)
    assert not found.objects(STATIC)
    assert held.parent == found.root
    bpy.context.view_layer.update()
    assert np.allclose(held.matrix_world, place, atol=1e-6)
    bpy.data.objects.remove(held)
    assert census() == counted


def test_what_was_deleted_comes_back_only_on_request(first, tmp_path, scene):
    bpy.data.objects.remove(first.camera)
    found = updated(tmp_path / "first", scene)
    assert found.camera is None
    assert not bpy.data.cameras.get("room Camera.001")
    found = updated(tmp_path / "first", scene, restore_deleted=True)
    assert found.camera.parent == found.root
    assert found.camera.name in found.collection.objects
    assert scene.camera == found.camera


def test_scene_settings_that_the_artist_changed_stay(first, tmp_path, scene):
    scene.frame_end, scene.render.resolution_x = 50, 2048
    other = bpy.data.objects.new("Other Camera", bpy.data.cameras.new("Other"))
    scene.collection.objects.link(other)
    scene.camera = other
    updated(written(of_another_engine(6), tmp_path / "second"), scene, start_frame=11)
    assert (scene.frame_start, scene.frame_end, scene.render.resolution_x) == (11, 50, 2048)
    assert scene.camera == other


def test_pictures_stay_the_same_datablocks(first, tmp_path, scene):
    images = {i.name: i for i in bpy.data.images if i.name.startswith("room")}
    assert set(images) == {"room Frames", "room Mask", "room Depth", "room Confidence"}
    tree = getattr(scene, "compositing_node_group", None) or scene.node_tree
    group = next(n for n in tree.nodes if getattr(n, "node_tree", None))
    viewer = tree.nodes.new("CompositorNodeViewer")
    tree.links.new(group.outputs["Mask"], viewer.inputs[0])
    first.camera.data.background_images[1].alpha = 0.25
    rows = len(first.camera.data.background_images)
    found = updated(written(of_another_engine(6), tmp_path / "second"), scene)
    for name, image in images.items():
        assert bpy.data.images[name] == image
        assert Path(bpy.path.abspath(image.filepath)).parent == tmp_path / "second"
    assert viewer.inputs[0].links[0].from_socket.name == "Mask"
    assert group.node_tree.name == "room Elements"
    row = found.camera.data.background_images[1]
    assert row.alpha == 0.25
    assert row.image_user.frame_duration == 6
    assert len(found.camera.data.background_images) == rows


def said(value):
    """A value of Blender as one that outlives undo: datablocks by their name."""
    if isinstance(value, bpy.types.ID):
        return value.name_full
    value = own(value)
    if isinstance(value, dict):
        return {name: said(v) for name, v in value.items()}
    if hasattr(value, "__len__") and not isinstance(value, str | bytes):
        return [said(v) for v in value]
    return "nan" if value != value else value  # which is not equal to itself


def fingerprint(scene) -> dict:
    """Everything of the file that an update could change, as plain values."""
    facts = {d.session_uid: d.name_full for d in bpy.data.user_map()}
    for ob in bpy.data.objects:
        facts[ob.name, "place"] = (str(ob.matrix_basis), said(ob.parent), said(ob.data), said(ob.users_collection))
        facts[ob.name, "properties"] = {k: said(v) for k, v in ob.items()}
        for m in (m for m in ob.modifiers if m.type == "NODES" and m.node_group):
            facts[ob.name, m.name] = [(name, said(get_input(m, name))) for name in input_names(m)]
    for found in imported_in(scene):
        for path in ("location", "rotation_quaternion") if found.camera else ():
            for curve in keyed(found.camera, path):
                facts[path, curve.array_index] = [(tuple(k.co), k.interpolation) for k in curve.keyframe_points]
        for i, row in enumerate(found.camera.data.background_images if found.camera else ()):
            facts["row", i] = (said(row.image), said(row.clip), row.alpha, row.image_user.frame_duration)
    for image in (*bpy.data.images, *bpy.data.movieclips):
        facts[image.name, "file"] = (image.filepath, image.get("kinora_folder"))
    for collection in bpy.data.collections:
        facts[collection.name, "objects"] = sorted(ob.name for ob in collection.objects)
    render = scene.render
    return facts | {"scene": (scene.frame_start, scene.frame_end, said(scene.camera), render.fps, render.resolution_x)}


@pytest.mark.parametrize("step", ["pictures", "elements", "objects", "frames", "scene", "facts"])
def test_an_update_that_breaks_leaves_the_earlier_import_exactly_as_it_was(step, first, tmp_path, scene, monkeypatch):
    """The failure comes after each part of the exchange."""
    updated(tmp_path / "first", scene, storage="split")
    path = written(of_another_engine(6), tmp_path / "second")
    real = getattr(_Swap, step)

    def breaking(self, *args):
        real(self, *args)
        raise RuntimeError("no memory")

    monkeypatch.setattr(_Swap, step, breaking)
    before = fingerprint(scene)
    with pytest.raises(RuntimeError, match="no memory"):
        updated(path, scene)
    assert fingerprint(scene) == before


def test_an_update_whose_camera_cannot_be_edited_again_is_taken_back_too(first, tmp_path, scene, monkeypatch):
    """Smoothing and frames that are off are applied to the new keys, last of all that may fail."""
    path = written(of_another_engine(6), tmp_path / "second")
    real = update_module.renew_camera

    def breaking(*args):
        real(*args)
        raise UserError("No frame would have a camera")

    monkeypatch.setattr(update_module, "renew_camera", breaking)
    before = fingerprint(scene)
    with pytest.raises(UserError, match="No frame"):
        updated(path, scene)
    assert fingerprint(scene) == before


def test_a_cancelled_update_leaves_the_earlier_import_as_it_was(first, tmp_path, scene):
    path = written(of_another_engine(6), tmp_path / "second")
    before = fingerprint(scene)

    def progress(stage, fraction):
        if stage == "Linking":
            raise Cancelled("Cancelled")

    with pytest.raises(Cancelled):
        import_capture(path, scene, ImportOptions(existing="update"), progress)
    assert fingerprint(scene) == before


def test_without_an_earlier_import_of_the_clip_a_new_one_is_made(first, tmp_path, scene):
    other = small(3, source="/footage/other.mp4")
    import_capture(written(other, tmp_path / "other"), scene, ImportOptions(existing="update"))
    assert [one.name for one in imported_in(scene)] == ["other", "room"]
    elsewhere = bpy.data.scenes.new("Elsewhere")
    import_capture(tmp_path / "first", elsewhere, ImportOptions(existing="update"))
    assert [one.name for one in imported_in(elsewhere)] == ["room.001"]


def test_when_several_could_be_meant_the_artist_is_asked(first, tmp_path, scene):
    import_capture(tmp_path / "first", scene)
    counted = census()
    with pytest.raises(UserError, match="was imported 2 times"):
        import_capture(tmp_path / "first", scene, ImportOptions(existing="update"))
    assert census() == counted


def test_all_parts_are_still_those_of_one_import(first, tmp_path, scene):
    found = updated(written(of_another_engine(6), tmp_path / "second"), scene, storage="split")
    assert {ob.get("kinora_root") for ob in scene.objects if ob != found.root} == {found.root}
    assert [len(found.objects(role)) for role in (CAMERA, PLAYER, STATIC)] == [1, 1, 1]
    frames = get_input(found.objects(PLAYER)[0].modifiers[0], "Frames")
    assert [ob.name for ob in frames.objects] == [f"room Frames_f{i:05d}" for i in range(6)]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_capture_of_another_size_is_told(scale, first, tmp_path, scene):
    """Its root keeps the artist's scale, so what was placed beside a door is no longer beside it."""
    found = updated(written(of_another_engine(4, scale), tmp_path / "second"), scene)
    notes = [note for note in ImportReport.read(found.root).notes if "times the size" in note]
    assert len(notes) == (scale != 1)
    assert all("is 2 times the size of the earlier one" in note for note in notes)


@pytest.mark.parametrize("kind", [LINKED, PROJECTED])
def test_points_in_files_follow_the_update(kind, first, tmp_path, scene):
    """An import whose points were converted: the artist's settings stay, the files are the new capture's."""
    (player,) = first.objects(PLAYER)
    set_input(player.modifiers[0], "Point Size", 4.0)
    finish(convert_storage(first, "embedded", kind))
    capture = of_another_engine(6)
    found = updated(written(capture, tmp_path / "second"), scene)
    assert not found.objects(PLAYER), "the embedded points are not brought back"
    (ob,) = found.objects(kind)
    assert get_input(find_modifier(ob), "Point Size") == 4
    assert get_input(find_modifier(ob), "Length") == 6
    fresh = import_capture(tmp_path / "second", bpy.data.scenes.new("Other"), ImportOptions(storage="frames"))
    truth = get_input(find_modifier(player_of(fresh)), "Frames").objects
    for frame in (1, 6):
        scene.frame_set(frame)
        assert len(shown(ob)["position"]) == len(truth[frame - 1].data.points)
    assert not [note for note in ImportReport.read(found.root).notes if "earlier capture" in note]
