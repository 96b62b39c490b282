"""An import is found again by what belongs to it, whatever the artist renames, moves or deletes."""

from types import SimpleNamespace

import bpy
import pytest

from blender_addon.scene.imported import CAMERA, PLAYER, STATIC, Imported, find_imported, imported_in
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported, small


def context(scene, active=None):
    """What an operator sees when `active` is the active object."""
    layer = SimpleNamespace(objects=SimpleNamespace(active=active))
    return SimpleNamespace(scene=scene, view_layer=layer)


def test_the_parts_are_found_after_renaming_and_moving(tmp_path, scene):
    imported(small(3), tmp_path, scene, storage="split")
    (found,) = imported_in(scene)
    elsewhere = bpy.data.collections.new("Elsewhere")
    scene.collection.children.link(elsewhere)
    for ob in list(scene.objects):
        ob.name = "renamed"
        elsewhere.objects.link(ob)
    bpy.data.collections.remove(found.collection)
    assert [len(found.objects(role)) for role in (CAMERA, PLAYER, STATIC)] == [1, 1, 1]
    assert found.camera.type == "CAMERA"
    assert found.collection is elsewhere
    assert found.capture().frame_count == 3


def test_the_active_object_says_which_of_two_is_meant(tmp_path, scene):
    imported(small(3), tmp_path / "a", scene)
    imported(small(3), tmp_path / "b", scene)
    one, two = imported_in(scene)
    assert find_imported(context(scene)) is None
    assert find_imported(context(scene, two.camera)) == two
    held = bpy.data.objects.new("Prop", None)  # an artist's object that follows the camera
    scene.collection.objects.link(held)
    held.parent = one.camera
    assert find_imported(context(scene, held)) == one
    assert find_imported(context(bpy.data.scenes.new("Other"), held)) is None


def test_what_was_deleted_is_not_found(tmp_path, scene):
    imported(small(3), tmp_path, scene)
    (found,) = imported_in(scene)
    bpy.data.objects.remove(found.camera)
    assert found.camera is None
    bpy.data.objects.remove(found.root)
    assert imported_in(scene) == []
    assert find_imported(context(scene)) is None


def test_a_capture_that_was_moved_says_what_to_do(tmp_path, scene):
    imported(small(3), tmp_path, scene)
    (found,) = imported_in(scene)
    found.folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="Relink Capture"):
        Imported(found.root).capture()
