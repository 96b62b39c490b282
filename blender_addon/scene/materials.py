"""The material of the points: they shine in the colours of the plate, in Cycles and in EEVEE; ghosts fade."""

from __future__ import annotations

import bpy

from .attributes import AGE, COLOR


def point_material(name: str) -> bpy.types.Material:
    """An emission of the points' own colour: it needs no light and renders the plate's values.

    The older or later a ghost is, the more is seen through it; points without an age are opaque.
    """
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True  # Blender 5 makes the tree by itself and warns of this property
    tree = material.node_tree
    tree.nodes.clear()

    def node(kind: str, x: int, y: int = 0) -> bpy.types.Node:
        made = tree.nodes.new(f"ShaderNode{kind}")
        made.location = (220 * x, 180 * y)
        return made

    color, age = node("Attribute", 0), node("Attribute", 0, 2)
    color.attribute_name, age.attribute_name = COLOR, AGE
    faded = node("Math", 1, 2)
    faded.operation = "ABSOLUTE"
    emission, nothing, mixed, output = (
        node("Emission", 1),
        node("BsdfTransparent", 1, 1),
        node("MixShader", 2),
        node("OutputMaterial", 3),
    )
    for start, end in (
        (color.outputs["Color"], emission.inputs["Color"]),
        (age.outputs["Fac"], faded.inputs[0]),
        (faded.outputs[0], mixed.inputs[0]),
        (emission.outputs[0], mixed.inputs[1]),
        (nothing.outputs[0], mixed.inputs[2]),
        (mixed.outputs[0], output.inputs["Surface"]),
    ):
        tree.links.new(start, end)
    return material
