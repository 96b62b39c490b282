"""What the depth-projected mesh is used for, and the material that a camera projects the plate with.

The material is exact: it asks the shader where a surface stands before the camera, and takes the lens from the camera
itself, so that it follows what is done to either. No UV map and no add-on is needed.
"""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError
from .attributes import CLIP_FRAME, COLOR
from .belongings import remove_unused
from .conventions import blender_lens, sensor_width
from .graph import arrange
from .images import Timing, time_sequence
from .imported import ROLE, ROOT_POINTER, Imported, mark
from .keys import unkey
from .nodes import find_modifier, get_input, input_names, set_input

POINTS, MESH, HOLDOUT, CATCHER, PROJECTION = "points", "mesh", "holdout", "shadow_catcher", "projection"

#: On the object: its use, and the material that it has as points and as a mesh.
USE, LOOK = "kinora_use", "kinora_look"

#: The node of a projection that holds the pictures.
_PLATE = "Plate"


def use_of(ob: bpy.types.Object) -> str:
    """What a depth-projected object is used for; it begins as points."""
    return ob.get(USE, POINTS)


def set_use(imported: Imported, ob: bpy.types.Object, use: str) -> None:
    """Show a depth-projected object as points or a mesh, or have the mesh cut CG out, catch shadows, carry the plate.

    The artist's material comes back with points and mesh. Raises UserError when a projection needs a capture that is
    not where it was, or when the artist took the object's nodes off.
    """
    modifier = find_modifier(ob)
    if modifier is None:
        raise UserError(f"The nodes of {ob.name} were removed", "make it again from the capture")
    look = _look(ob)
    if look is not None:
        ob[LOOK] = look
    if use == PROJECTION:
        material = _own(imported, PROJECTION) or _mesh_projection(imported, ob)
        show_when(material, _timing(ob))
    elif use == CATCHER:
        material = _own(imported, CATCHER) or _catcher(imported)
    else:
        material = look
    before = get_input(modifier, "Material")
    ob[USE] = use
    set_input(modifier, "Surface", use != POINTS)
    set_input(modifier, "Material", material)
    if before is not None and before.get(ROLE) in (CATCHER, PROJECTION):
        remove_unused([before])
    ob.is_holdout, ob.is_shadow_catcher = use == HOLDOUT, use == CATCHER


def inherit_use(imported: Imported, new: bpy.types.Object, old: bpy.types.Object) -> None:
    """Give an object that takes the place of another one its use, or if it is no mesh the material of its points."""
    if USE not in old:
        return
    new.is_holdout = new.is_shadow_catcher = False
    modifier = find_modifier(new)
    set_input(modifier, "Material", _look(old))
    if "Surface" in input_names(modifier):
        set_use(imported, new, use_of(old))


def _look(ob: bpy.types.Object) -> bpy.types.Material | None:
    """The material of a depth-projected object's points and mesh, which some uses replace."""
    return ob.get(LOOK) if use_of(ob) in (CATCHER, PROJECTION) else get_input(find_modifier(ob), "Material")


def _own(imported: Imported, role: str) -> bpy.types.Material | None:
    """The import's material of that role, if there is one."""
    marked = (m for m in bpy.data.materials if m.get(ROLE) == role and m.get(ROOT_POINTER) == imported.root)
    return next(marked, None)


def _mesh_projection(imported: Imported, ob: bpy.types.Object) -> bpy.types.Material:
    plate = get_input(find_modifier(ob), "Plate")
    name = f"{imported.name} Projection"
    material = projection_material(name, imported.capture(), imported.camera, plate)
    mark(material, PROJECTION, imported.root)
    return material


def _timing(ob: bpy.types.Object) -> Timing:
    """When a depth-projected object shows which picture, at its own speed 1."""
    clip_frames = np.empty(len(ob.data.vertices), np.float32)
    ob.data.attributes[CLIP_FRAME].data.foreach_get("value", clip_frames)
    return Timing(round(get_input(find_modifier(ob), "Start Frame")), np.rint(clip_frames).astype(int))


def _catcher(imported: Imported) -> bpy.types.Material:
    """A surface that takes light, as a shadow needs one, in the plate's colours for what it throws back."""
    material = _empty_material(f"{imported.name} Shadow Catcher")
    tree = material.node_tree
    color, surface, output = (tree.nodes.new(f"ShaderNode{k}") for k in ("Attribute", "BsdfDiffuse", "OutputMaterial"))
    color.attribute_name = COLOR
    tree.links.new(color.outputs["Color"], surface.inputs["Color"])
    tree.links.new(surface.outputs[0], output.inputs["Surface"])
    for column, node in enumerate((color, surface, output)):
        node.location.x = 220 * column
    mark(material, CATCHER, imported.root)
    return material


def projection_material(
    name: str, capture: Capture, camera: bpy.types.Object, image: bpy.types.Image
) -> bpy.types.Material:
    """An emission of what `camera` sees in the pictures of `image` (the processed grid); transparent elsewhere.

    See `show_when` for which picture that is.
    """
    material = _empty_material(name)
    tree = material.node_tree

    def node(kind: str, **inputs: Any) -> bpy.types.Node:
        made = tree.nodes.new(f"ShaderNode{kind}")
        for key, value in inputs.items():
            feed(made.inputs[key], value)
        return made

    def feed(socket: bpy.types.NodeSocket, value: Any) -> None:
        if isinstance(value, bpy.types.NodeSocket):
            tree.links.new(value, socket)
        else:
            socket.default_value = value

    def math(operation: str, a: Any, b: Any) -> bpy.types.NodeSocket:
        made = tree.nodes.new("ShaderNodeMath")
        made.operation = operation
        feed(made.inputs[0], a)
        feed(made.inputs[1], b)
        return made.outputs[0]

    place = node("TexCoord")
    place.object = camera
    x, y, z = node("SeparateXYZ", Vector=place.outputs["Object"]).outputs
    distance = math("MULTIPLY", z, -1.0)
    lens, sensor, shift_x, shift_y = (
        _driven(tree, camera, path) for path in ("lens", "sensor_width", "shift_x", "shift_y")
    )
    focal = math("DIVIDE", lens, sensor)
    # From the camera's axes to its plate, 0 to 1 with y down (conventions.blender_lens), and on to the processed grid.
    (width, height), (grid_width, grid_height) = capture.clip.plate_size, capture.processed_size
    aspect_x, aspect_y = blender_lens(
        capture.plate_intrinsics[capture.has_camera], (width, height), sensor_width(capture)
    ).pixel_aspect
    tall = width / height * aspect_x / aspect_y
    to_grid = capture.plate_map
    across = math("SUBTRACT", math("MULTIPLY", focal, math("DIVIDE", x, distance)), shift_x)
    down = math("SUBTRACT", shift_y, math("MULTIPLY", focal, math("DIVIDE", y, distance)))
    u = math("MULTIPLY", math("ADD", across, 0.5), width * to_grid.sx / grid_width)
    v = math("MULTIPLY", math("ADD", math("MULTIPLY", down, tall), 0.5), height * to_grid.sy / grid_height)
    u = math("SUBTRACT", u, to_grid.ox / grid_width)
    v = math("SUBTRACT", 1.0 + to_grid.oy / grid_height, v)

    texture = node("TexImage", Vector=node("CombineXYZ", X=u, Y=v).outputs[0])
    texture.name, texture.image, texture.extension = _PLATE, image, "CLIP"
    inside = math("MULTIPLY", texture.outputs["Alpha"], math("GREATER_THAN", distance, 0.0))
    mixed = node("MixShader")
    output = node("OutputMaterial")
    feed(mixed.inputs[0], inside)
    feed(mixed.inputs[1], node("BsdfTransparent").outputs[0])
    feed(mixed.inputs[2], node("Emission", Color=texture.outputs["Color"]).outputs[0])
    feed(output.inputs["Surface"], mixed.outputs[0])
    arrange(tree)
    return material


def show_when(material: bpy.types.Material, timing: Timing | int) -> None:
    """Have a projection show each picture in its time, or always the one of that number."""
    tree = material.node_tree
    user = tree.nodes[_PLATE].image_user
    path = f'nodes["{_PLATE}"].image_user'
    unkey(tree, f"{path}.frame_offset")
    if isinstance(timing, Timing):
        time_sequence(user, timing, tree, path, None)
    else:
        user.frame_start, user.frame_duration, user.frame_offset = 1, 1, timing - 1


def _driven(tree: bpy.types.NodeTree, camera: bpy.types.Object, path: str) -> bpy.types.NodeSocket:
    """A number that is always what the camera's data says: no expression, so that no file asks to trust it."""
    node = tree.nodes.new("ShaderNodeValue")
    node.label = path
    driver = node.outputs[0].driver_add("default_value").driver
    driver.type = "SUM"
    variable = driver.variables.new()
    variable.targets[0].id_type = "CAMERA"
    variable.targets[0].id = camera.data
    variable.targets[0].data_path = path
    return node.outputs[0]


def _empty_material(name: str) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True  # Blender 5 makes the tree by itself and warns of this property
    material.node_tree.nodes.clear()
    return material
