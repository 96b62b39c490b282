"""CG passes behind what moves: plate, CG and movers in the rendered picture, and the artist's tree left as it was."""

from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.behind_movers import add_behind_movers, find_behind_movers, remove_behind_movers
from blender_addon.scene.compositor import compositor_of, find_tree
from blender_addon.scene.distortion import PlateLens
from blender_addon.scene.imported import imported_in
from blender_addon.scene.mask_editing import plate_mask
from blender_addon.wire.errors import UserError
from tests.footage import HEIGHT, WIDTH, pictures, write_video
from tests.scene.captures import imported, small

PLATE = (WIDTH, HEIGHT)
FRAMES = 10
CG = np.array((0, 0, 255))


def mask_at(index):
    """A mover that walks from left to right, a sixteenth of the picture in each frame, over all of its height."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, 10 * index : 10 * index + 60] = True
    return mask


@pytest.fixture
def shot(tmp_path, scene):
    """The import, with blue CG before the camera that covers the right three quarters of the picture."""
    footage = write_video(tmp_path / "room.mp4", pictures(FRAMES), options={"crf": "0", "g": "4"})
    capture = small(FRAMES, PLATE, source=str(footage))
    masks = np.stack([mask_at(i) for i in range(FRAMES)])
    imported(replace(capture, plate_masks=masks), tmp_path, scene, images=True)
    (found,) = imported_in(scene)
    for ob in scene.objects:
        ob.hide_render = ob.type != "CAMERA"
    mesh = bpy.data.meshes.new("CG")
    mesh.from_pydata([(-0.25, -9, -1), (9, -9, -1), (9, 9, -1), (-0.25, 9, -1)], [], [(0, 1, 2, 3)])
    card = bpy.data.objects.new("CG", mesh)
    card.parent = scene.camera
    material = bpy.data.materials.new("CG")
    if material.node_tree is None:  # before 5.0
        material.use_nodes = True
    material.node_tree.nodes.clear()
    emission = material.node_tree.nodes.new("ShaderNodeEmission")
    emission.inputs["Color"].default_value = (0, 0, 1, 1)
    output = material.node_tree.nodes.new("ShaderNodeOutputMaterial")
    material.node_tree.links.new(emission.outputs[0], output.inputs[0])
    mesh.materials.append(material)
    scene.collection.objects.link(card)
    return found


def rendered(scene, frame, folder):
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.cycles.pixel_filter_type = "BOX"
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(frame)
    scene.render.filepath = str(folder / "frame.png")
    bpy.ops.render.render(write_still=True)
    return iio.imread(scene.render.filepath)[..., :3].astype(int)


def close(a, b):
    return np.percentile(np.abs(a - b), 99) < 3


def test_cg_is_over_the_plate_and_behind_the_movers(tmp_path, scene, shot):
    node = add_behind_movers(shot, scene, connect=True, film=True)
    node.inputs["Soft Edge"].default_value = 0
    assert scene.render.film_transparent
    plates = pictures(FRAMES)
    for frame in (1, 5, 10):
        seen, mask, plate = rendered(scene, frame, tmp_path), mask_at(frame - 1), plates[frame - 1].astype(int)
        columns = np.arange(WIDTH)
        # The card's left edge is 0.25 before the middle at distance 1, at 0.9 focal lengths a picture's width.
        edge = WIDTH / 2 - 0.25 * 0.9 * WIDTH
        covered = np.zeros((HEIGHT, WIDTH), bool) | (columns > edge + 2)
        bare = np.zeros((HEIGHT, WIDTH), bool) | (columns < edge - 2)
        assert close(seen[covered & ~mask], CG)
        inner = mask & np.roll(mask, 3, 1) & np.roll(mask, -3, 1)  # video keeps colour at half the resolution
        assert np.abs(seen - plate)[inner & (covered | bare)].mean() < 3
        assert np.abs(seen - plate)[bare].mean() < 3
        assert (mask & covered).any()


def test_cg_and_mask_are_bent_like_a_plate_with_lens_distortion(tmp_path, scene):
    """Grey movers before blue CG: what is seen of them is the mask where the lens shows it, not where it was known."""
    footage = write_video(tmp_path / "room.mp4", [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 3, options={"crf": "0"})
    capture = small(3, PLATE, source=str(footage), k1=-0.3)
    mask = np.zeros((3, HEIGHT, WIDTH), bool)
    mask[:, 10:40, 8:60] = True
    imported(replace(capture, plate_masks=mask), tmp_path, scene, images=True)
    (found,) = imported_in(scene)
    tree = compositor_of(scene)
    node = add_behind_movers(found, scene, connect=True, film=False)
    node.inputs["Soft Edge"].default_value = 0
    blue = tree.nodes.new("CompositorNodeRGB")
    blue.outputs[0].default_value = (0, 0, 1, 1)
    for ob in scene.objects:
        ob.hide_render = ob.type != "CAMERA"
    # Blue everywhere stands in for a render: it is bent too, and so reaches inwards as far as the lens shows.
    scale = tree.nodes.new("CompositorNodeAlphaOver")
    layers = next(n for n in tree.nodes if n.bl_idname == "CompositorNodeRLayers")
    tree.links.new(layers.outputs["Image"], scale.inputs[0 if "Background" in scale.inputs else 1])
    tree.links.new(blue.outputs[0], scale.inputs[1 if "Background" in scale.inputs else 2])
    tree.links.new(scale.outputs[0], node.inputs["Image"])
    seen = rendered(scene, 2, tmp_path)
    shot = plate_mask(found.capture(), 1)
    assert (shot != mask[1]).mean() > 0.015
    grey = np.abs(seen - 128).max(-1) < 8
    inside = PlateLens.of(capture).undistort(np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1) + 0.5)
    covered = ((inside > 1) & (inside < (WIDTH - 1, HEIGHT - 1))).all(-1)
    assert (grey != shot)[covered].mean() < 0.005
    assert (grey != mask[1])[covered].mean() > 0.01


def test_half_a_percentage_shows_the_same_picture(tmp_path, scene, shot):
    node = add_behind_movers(shot, scene, connect=True, film=True)
    node.inputs["Soft Edge"].default_value = 0
    whole = rendered(scene, 5, tmp_path)
    scene.render.resolution_percentage = 50
    half = rendered(scene, 5, tmp_path)
    shrunk = whole.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    assert np.median(np.abs(half - shrunk)) < 3
    assert (np.abs(half - shrunk).max(-1) < 20).mean() > 0.9


def test_a_soft_edge_blends_and_movers_can_be_faded(tmp_path, scene, shot):
    node = add_behind_movers(shot, scene, connect=True, film=True)
    node.inputs["Soft Edge"].default_value = 8
    row = rendered(scene, 5, tmp_path)[10, :, 2]
    right = 10 * 4 + 60  # where the mover of frame 5 ends, on grey 96
    assert 110 < row[right] < 240
    assert np.all(np.diff(row[right - 6 : right + 6]) >= 0)
    node.inputs["Movers"].default_value = 0
    assert close(rendered(scene, 5, tmp_path)[:, 60:], CG)


def links_of(tree):
    return {(n.from_node.name, n.from_socket.name, n.to_node.name, n.to_socket.name) for n in tree.links}


def test_an_artists_tree_is_joined_again_when_it_is_removed(scene, shot):
    tree = compositor_of(scene)
    layers = next(n for n in tree.nodes if n.bl_idname == "CompositorNodeRLayers")
    result = next(n for n in tree.nodes if n.bl_idname in ("NodeGroupOutput", "CompositorNodeComposite"))
    blur = tree.nodes.new("CompositorNodeBlur")
    tree.links.new(layers.outputs["Image"], blur.inputs["Image"])
    tree.links.new(blur.outputs["Image"], result.inputs[0])
    before, names, groups = links_of(tree), {n.name for n in tree.nodes}, set(bpy.data.node_groups.keys())
    node = add_behind_movers(shot, scene, connect=True, film=True)
    assert (blur.name, "Image", node.name, "Image") in links_of(tree)
    assert find_behind_movers(shot, scene) == [node]
    with pytest.raises(UserError, match="already"):
        add_behind_movers(shot, scene, connect=True, film=True)
    remove_behind_movers(shot, scene)
    assert links_of(tree) == before
    assert {n.name for n in tree.nodes} == names
    assert set(bpy.data.node_groups.keys()) == groups
    assert not scene.render.film_transparent


def test_unconnected_it_changes_no_link_and_a_scene_without_compositor_gets_one(scene, shot):
    tree = find_tree(scene)
    before = links_of(tree)
    add_behind_movers(shot, scene, connect=False, film=False)
    assert links_of(tree) == before
    assert not scene.render.film_transparent
    other = bpy.data.scenes.new("Other")
    node = add_behind_movers(shot, other, connect=True, film=True)
    assert node.inputs["Image"].is_linked
    assert node.outputs["Image"].is_linked
    assert [n.scene for n in find_tree(other).nodes if n.bl_idname == "CompositorNodeRLayers"] == [other]


def test_without_masks_it_cannot_be_made(tmp_path, scene):
    imported(small(2), tmp_path, scene)
    (found,) = imported_in(scene)
    groups = len(bpy.data.node_groups)
    with pytest.raises(UserError, match="without its plate"):
        add_behind_movers(found, scene, connect=True, film=True)
    assert len(bpy.data.node_groups) == groups
