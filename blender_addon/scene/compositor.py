"""The elements of a capture in the compositor: one node group with plate, mask, depth and confidence."""

from __future__ import annotations

from typing import Any

import bpy

from .images import Pictures, Timing, time_sequence
from .steps import Step, Steps


def elements_group(name: str, pictures: Pictures, timing: Timing) -> Steps[bpy.types.NodeTree]:
    """Steps to a group whose outputs are the capture's pictures in their units: depth in scene units, mask 0 or 1."""
    tree = bpy.data.node_groups.new(f"{name} Elements", "CompositorNodeTree")
    output = tree.nodes.new("NodeGroupOutput")
    output.location = (900, 0)
    action = None
    if len(timing.clip_frames) != timing.length:
        action = bpy.data.actions.new(tree.name)
    rows: list[tuple[str, Any]] = []
    if pictures.plate is not None:
        # As it was shot: Blender's Movie Distortion node shifts a picture by up to a pixel when it undistorts it, so a
        # render is to be distorted with it instead. The clip has the lens for that.
        node = tree.nodes.new("CompositorNodeMovieClip")
        node.clip = pictures.plate
        rows.append(("Plate", node))
    for label, sequence in pictures.sequences.items():
        node = tree.nodes.new("CompositorNodeImage")
        node.name = node.label = label
        node.image = sequence.image
        time_sequence(node, timing, tree, f'nodes["{node.name}"]', action)
        rows.append((label, node))
        yield Step("Pictures", 0.94)
    for row, (label, node) in enumerate(rows):
        yield Step("Pictures", 0.94)
        picture = label in ("Plate", "Frames")
        tree.interface.new_socket(
            label, in_out="OUTPUT", socket_type="NodeSocketColor" if picture else "NodeSocketFloat"
        )
        value = node.outputs[0]
        if label in ("Depth", "Confidence"):
            value = _in_units(tree, value, pictures.sequences[label], -300 * row)
        tree.links.new(value, output.inputs[label])
        node.location.y = -300 * row
    return tree


def _in_units(tree: bpy.types.NodeTree, value: Any, sequence: Any, y: float) -> Any:
    """The level of a picture times its scale plus its offset; one over it where the capture says so."""
    steps = [("MULTIPLY", sequence.scale), ("ADD", sequence.offset)]
    for column, (operation, number) in enumerate(steps):
        node = tree.nodes.new("ShaderNodeMath" if bpy.app.version >= (5, 0) else "CompositorNodeMath")
        node.operation = operation
        node.location = (300 + 180 * column, y)
        tree.links.new(value, node.inputs[0])
        node.inputs[1].default_value = number
        value = node.outputs[0]
    if sequence.inverse:
        node = tree.nodes.new("ShaderNodeMath" if bpy.app.version >= (5, 0) else "CompositorNodeMath")
        node.operation = "DIVIDE"
        node.location = (660, y)
        node.inputs[0].default_value = 1.0
        tree.links.new(value, node.inputs[1])
        value = node.outputs[0]
    return value


def find_tree(scene: bpy.types.Scene) -> bpy.types.NodeTree | None:
    """The compositor of a scene as it is; None when it has none."""
    return scene.compositing_node_group if hasattr(scene, "compositing_node_group") else scene.node_tree


def compositor_of(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """The compositor of a scene; one without gets one that changes nothing: the render, and it is the result."""
    if find_tree(scene) is None:
        if not hasattr(scene, "compositing_node_group"):  # before 5.0
            scene.use_nodes = True  # makes Render Layers and Composite, linked
            for node in scene.node_tree.nodes:
                if node.bl_idname == "CompositorNodeRLayers":
                    node.scene = scene  # Blender takes that of the window
            return scene.node_tree
        tree = bpy.data.node_groups.new(f"{scene.name} Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        layers = tree.nodes.new("CompositorNodeRLayers")
        layers.scene = scene
        result = tree.nodes.new("NodeGroupOutput")
        result.location = (400, 0)
        tree.links.new(layers.outputs["Image"], result.inputs["Image"])
        scene.compositing_node_group = tree
    return find_tree(scene)


def show_group(scene: bpy.types.Scene, group: bpy.types.NodeTree) -> None:
    """Add the group, unconnected, to the scene's compositor."""
    tree = compositor_of(scene)
    node = tree.nodes.new("CompositorNodeGroup")
    node.node_tree = group
    node.name = node.label = group.name
    node.location = (min((n.location.x for n in tree.nodes), default=0), min(n.location.y for n in tree.nodes) - 400)
