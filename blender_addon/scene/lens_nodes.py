"""A compositor group that takes the lens distortion out of a picture of the plate's size, or puts it into one.

It reads the ST maps. Blender's own Movie Distortion node is off by up to a pixel on 4.5, and wrong for lenses that are
off-centre and for pixels that are not square.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from .belongings import marked
from .imported import Imported, mark

#: The role of the group and of the two maps that it reads.
LENS = "lens"
_OUTPUTS = ("Undistorted", "Distorted")


def lens_group(imported: Imported, undistort: Path, redistort: Path) -> bpy.types.NodeTree:
    """The group of an import: from "Image" to "Undistorted" and "Distorted"; made once, later its maps are read again.

    It stays in the file without being used, under Add > Group in the compositor.
    """
    group = next((d for d in marked(imported.root, LENS) if isinstance(d, bpy.types.NodeTree)), None)
    group = group or _new_group(imported)
    for label, path in zip(_OUTPUTS, (undistort, redistort)):
        node = group.nodes[label]
        if node.image is None:
            node.image = bpy.data.images.load(str(path))
            node.image.name = f"{imported.name} ST {label}"
            mark(node.image, LENS, imported.root)
        node.image.filepath = str(path)
        node.image.colorspace_settings.name = "Non-Color"
        node.image.reload()
    return group


def _new_group(imported: Imported) -> bpy.types.NodeTree:
    tree = bpy.data.node_groups.new(f"{imported.name} Lens Distortion", "CompositorNodeTree")
    tree.use_fake_user = True
    mark(tree, LENS, imported.root)
    tree.interface.new_socket("Image", in_out="INPUT", socket_type="NodeSocketColor")
    source, result = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    source.location, result.location = (-300, 0), (600, 0)
    for row, label in enumerate(_OUTPUTS):
        tree.interface.new_socket(label, in_out="OUTPUT", socket_type="NodeSocketColor")
        image, moved = tree.nodes.new("CompositorNodeImage"), tree.nodes.new("CompositorNodeMapUV")
        image.name = image.label = label
        image.location, moved.location = (0, -350 * row), (300, -350 * row)
        tree.links.new(source.outputs["Image"], moved.inputs["Image"])
        tree.links.new(image.outputs["Image"], moved.inputs["UV"])
        tree.links.new(moved.outputs["Image"], result.inputs[label])
    return tree
