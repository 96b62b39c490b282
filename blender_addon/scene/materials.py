"""The material of the points: they shine in the colours of the plate, in Cycles and in EEVEE."""

from __future__ import annotations

import bpy

from .nodes import COLOR


def point_material(name: str) -> bpy.types.Material:
    """An emission of the points' own colour: it needs no light and renders the plate's values."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True  # Blender 5 makes the tree by itself and warns of this property
    tree = material.node_tree
    tree.nodes.clear()
    color = tree.nodes.new("ShaderNodeAttribute")
    color.attribute_name = COLOR
    emission = tree.nodes.new("ShaderNodeEmission")
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(color.outputs["Color"], emission.inputs["Color"])
    tree.links.new(emission.outputs["Emission"], output.inputs["Surface"])
    for x, node in enumerate((color, emission, output)):
        node.location = (220 * x, 0)
    return material
