"""Removing an import takes everything of it and nothing of the artist's."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest

from backend.export.images import add_images
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.behind_movers import add_behind_movers
from blender_addon.scene.imported import PLAYER, Imported, imported_in
from blender_addon.scene.markers import show_markers
from blender_addon.scene.nodes import get_input
from blender_addon.scene.removal import take_out
from blender_addon.scene.solve_quality import SolveQuality
from blender_addon.scene.strips import add_strips
from blender_addon.wire.capture import write_capture
from tests.scene.captures import small
from tests.scene.test_update import census


@pytest.fixture
def path(tmp_path):
    return write_capture(small(3), tmp_path / "capture", [add_images])


def imported(path, scene, **options) -> Imported:
    import_capture(path, scene, ImportOptions(set_scene=False, **options))
    return imported_in(scene)[-1]


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_nothing_of_an_import_stays(storage, path, scene):
    before = census()
    found = imported(path, scene, storage=storage)
    assert census() != before
    take_out(found)
    assert census() == before
    assert not imported_in(scene)


def test_another_import_of_the_same_capture_is_left_alone(path, scene):
    imported(path, scene)
    counted, names = census(), sorted(ob.name for ob in scene.objects)
    second = imported(path, scene)
    take_out(second)
    assert census() == counted
    assert sorted(ob.name for ob in scene.objects) == names


def test_what_the_artist_made_stays_where_it_is(path, scene):
    found = imported(path, scene)
    (player,) = found.objects(PLAYER)
    found.root.location = (1, 2, 3)
    material = get_input(player.modifiers[0], "Material")
    mesh = bpy.data.meshes.new("Car")
    mesh.materials.append(material)
    car = bpy.data.objects.new("Car", mesh)
    found.collection.objects.link(car)
    car.parent = found.root
    child = bpy.data.collections.new("Props")
    found.collection.children.link(child)
    bpy.context.view_layer.update()
    place = np.array(car.matrix_world)
    mask = bpy.data.images["room Mask"]
    tree = bpy.data.node_groups.new("Mine", "CompositorNodeTree")
    tree.nodes.new("CompositorNodeImage").image = mask
    take_out(found)
    bpy.context.view_layer.update()
    assert np.allclose(car.matrix_world, place)
    assert car.parent is None
    assert list(car.users_collection) == [scene.collection]
    assert child.name in scene.collection.children
    assert mesh.materials[0] == material
    assert tree.nodes[0].image == mask
    assert list(bpy.data.images) == [mask]


def test_what_it_put_into_the_scene_goes_too(path, scene):
    """Markers, the behind-movers composite, strips and the unconnected node of the pictures."""
    import_capture(path, scene, ImportOptions())
    (found,) = imported_in(scene)
    scene.timeline_markers.new("Mine", frame=2)
    quality = SolveQuality.read(found.camera)
    show_markers(scene, found.root, replace(quality, flags=np.array([0, 1, 0])))
    assert len(scene.timeline_markers) == 2
    add_behind_movers(found, scene, connect=True, film=True)
    add_strips(found, scene, ("Mask",))
    take_out(found)
    assert [marker.name for marker in scene.timeline_markers] == ["Mine"]
    tree = getattr(scene, "compositing_node_group", None) or scene.node_tree
    assert "CompositorNodeGroup" not in {node.bl_idname for node in tree.nodes}
    assert [group for group in bpy.data.node_groups if group != tree] == []
    assert not [image for image in bpy.data.images if "kinora_folder" in image]
    assert not scene.sequence_editor.strips
