"""A composite in which CG passes behind what moves: plate, CG over it, and the movers of the plate over the CG.

One node group that the artist asks for, put in series before the result of the scene's compositor. Taking it out joins
what it came between. Nothing else of the tree is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

from ..wire.errors import UserError
from .belongings import ELEMENTS, marked, remove_unused
from .compositor import compositor_of, find_tree
from .distortion import write_st_maps
from .imported import ROLE, ROOT_POINTER, Imported, mark
from .mask_editing import plate_clip

BEHIND_MOVERS = "behind_movers"
#: On the node: whether the film was transparent before it was added.
_FILM = "kinora_film_transparent"


def behind_movers_group(imported: Imported) -> bpy.types.NodeTree:
    """The group: CG as rendered on transparent film goes in as Image, the finished picture comes out as Image.

    Soft Edge blurs the mask by that many pixels, Movers fades the movers in front of the CG. Where the plate has lens
    distortion, CG and mask are bent like it, by an ST map that is written beside the capture: the picture is as it was
    shot. Raises UserError when the import has no plate or no mask to make it from.
    """
    elements = next(iter(marked(imported.root, ELEMENTS)), None)
    outputs = {item.name for item in elements.interface.items_tree} if elements is not None else set()
    plate = next((name for name in ("Plate", "Frames") if name in outputs), None)
    if plate is None or "Mask" not in outputs:
        missing = "mask" if plate else "plate"
        raise UserError(f"{imported.name} was imported without its {missing}", "make the files found and import again")
    bent = _redistortion(imported) if plate == "Plate" else None
    tree = bpy.data.node_groups.new(f"{imported.name} Behind Movers", "CompositorNodeTree")
    mark(tree, BEHIND_MOVERS, imported.root)
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    tree.interface.new_socket("Image", in_out="INPUT", socket_type="NodeSocketColor").default_value = (0, 0, 0, 0)
    edge = tree.interface.new_socket("Soft Edge", in_out="INPUT", socket_type="NodeSocketFloat")
    edge.default_value, edge.min_value, edge.max_value, edge.description = 1.5, 0.0, 100.0, "Blur of the mask in pixels"
    movers = tree.interface.new_socket("Movers", in_out="INPUT", socket_type="NodeSocketFloat")
    movers.default_value, movers.min_value, movers.max_value = 1.0, 0.0, 1.0
    movers.subtype, movers.description = "FACTOR", "How much of the movers is in front of the CG"

    build = _Builder(tree)
    given = build.node("NodeGroupInput", -600, -300)
    source = build.node("CompositorNodeGroup", -600, 0)
    source.node_tree = elements
    still = build.at_render_size(source.outputs[plate], -300, 0)
    mask = build.at_render_size(source.outputs["Mask"], -300, -250)
    cg = given.outputs["Image"]
    if bent is not None:
        bend = build.node("CompositorNodeImage", -600, -550)
        bend.image = bent
        where = build.at_render_size(bend.outputs["Image"], -300, -550)
        mask, cg = build.bent(mask, where, -150, -250), build.bent(cg, where, -150, -450)
    blur = build.node("CompositorNodeBlur", -50, -250)
    if "Type" in blur.inputs:
        blur.inputs["Type"].default_value = "Gaussian"
    else:
        blur.filter_type = "GAUSS"
    build.link(mask, blur.inputs["Image"])
    build.link(given.outputs["Soft Edge"], blur.inputs["Size"])
    share = build.node("ShaderNodeMath" if bpy.app.version >= (5, 0) else "CompositorNodeMath", 150, -250)
    share.operation = "MULTIPLY"
    build.link(blur.outputs[0], share.inputs[0])
    build.link(given.outputs["Movers"], share.inputs[1])
    cut = build.node("CompositorNodeSetAlpha", 350, -200)  # its default multiplies colour and alpha
    build.link(still, cut.inputs["Image"])
    build.link(share.outputs[0], cut.inputs["Alpha"])
    behind = build.over(still, cg, 350, 100)
    front = build.over(behind, cut.outputs[0], 600, 0)
    build.link(front, build.node("NodeGroupOutput", 800, 0).inputs["Image"])
    return tree


def _redistortion(imported: Imported) -> bpy.types.Image | None:
    """The ST map that bends a render like the plate; None for a plate without distortion."""
    lens = plate_clip(imported).tracking.camera
    if not (lens.brown_k1 or lens.brown_k2):
        return None
    _, path = write_st_maps(imported.capture(), imported.folder.with_name(f"{imported.folder.name}_st"))
    image = bpy.data.images.load(str(path), check_existing=True)
    image.reload()
    image.colorspace_settings.name = "Non-Color"
    return image


class _Builder:
    """Nodes that are called differently in Blender 4.5."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        self.tree = tree

    def node(self, kind: str, x: float, y: float) -> bpy.types.Node:
        node = self.tree.nodes.new(kind)
        node.location = (x, y)
        return node

    def link(self, value: Any, socket: Any) -> None:
        self.tree.links.new(value, socket)

    def at_render_size(self, picture: Any, x: float, y: float) -> Any:
        """The picture stretched to the size of the render, whatever its percentage."""
        node = self.node("CompositorNodeScale", x, y)
        if hasattr(node, "space"):
            node.space, node.frame_method = "RENDER_SIZE", "STRETCH"
        else:
            node.inputs["Type"].default_value, node.inputs["Frame Type"].default_value = "Render Size", "Stretch"
        self.link(picture, node.inputs["Image"])
        return node.outputs[0]

    def bent(self, picture: Any, st_map: Any, x: float, y: float) -> Any:
        """The picture with each pixel from where an ST map says; nothing where it says nowhere."""
        node = self.node("CompositorNodeMapUV", x, y)
        self.link(picture, node.inputs["Image"])
        self.link(st_map, node.inputs["UV"])
        return node.outputs[0]

    def over(self, background: Any, foreground: Any, x: float, y: float) -> Any:
        node = self.node("CompositorNodeAlphaOver", x, y)
        named = "Background" in node.inputs
        self.link(background, node.inputs["Background" if named else 1])
        self.link(foreground, node.inputs["Foreground" if named else 2])
        return node.outputs[0]


def find_behind_movers(imported: Imported, scene: bpy.types.Scene) -> list[bpy.types.Node]:
    """The nodes in a scene's compositor that let CG pass behind the movers of this import."""
    tree = find_tree(scene)
    return [] if tree is None else list(_ours(imported, tree))


def _ours(imported: Imported, tree: bpy.types.NodeTree) -> Iterator[bpy.types.Node]:
    for node in tree.nodes:
        group = getattr(node, "node_tree", None)
        if group is not None and group.get(ROLE) == BEHIND_MOVERS and group.get(ROOT_POINTER) == imported.root:
            yield node


def add_behind_movers(imported: Imported, scene: bpy.types.Scene, *, connect: bool, film: bool) -> bpy.types.Node:
    """Add the group to the scene's compositor and return its node.

    With `connect` it goes in series before the result: what the result showed is its CG. With `film` the film is made
    transparent, without which the CG hides the whole plate. Raises UserError when it is there already, or when there
    is nothing to make it from.
    """
    if find_behind_movers(imported, scene):
        raise UserError("The compositor lets CG pass behind the movers already", "see its node in the compositor")
    group = behind_movers_group(imported)
    tree = compositor_of(scene)
    node = tree.nodes.new("CompositorNodeGroup")
    node.node_tree = group
    node.name = node.label = group.name
    node.width = 200
    result = _result(tree)
    if connect:
        socket = result.inputs[0]
        came = socket.links[0].from_socket if socket.is_linked else _render(tree, scene)
        node.location = (result.location.x, result.location.y)
        result.location.x += 260
        tree.links.new(came, node.inputs["Image"])
        tree.links.new(node.outputs["Image"], socket)
    else:
        node.location = (min(n.location.x for n in tree.nodes), min(n.location.y for n in tree.nodes) - 300)
    if film:
        node[_FILM] = scene.render.film_transparent
        scene.render.film_transparent = True
    return node


def _result(tree: bpy.types.NodeTree) -> bpy.types.Node:
    """The node whose first input is the scene's picture; made when the tree has none."""
    kind = "NodeGroupOutput" if bpy.app.version >= (5, 0) else "CompositorNodeComposite"
    found = [n for n in tree.nodes if n.bl_idname == kind]
    active = next((n for n in found if getattr(n, "is_active_output", True)), next(iter(found), None))
    if active is None:
        active = tree.nodes.new(kind)
        active.location = (max((n.location.x for n in tree.nodes), default=0) + 400, 0)
    if not len(active.inputs) or active.inputs[0].type != "RGBA":
        if bpy.app.version < (5, 0) or any(i.item_type == "SOCKET" for i in tree.interface.items_tree):
            raise UserError("The compositor's first output is no picture", "add the node without connecting it")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    return active


def _render(tree: bpy.types.NodeTree, scene: bpy.types.Scene) -> Any:
    """The picture of the scene's Render Layers node; made when the tree has none."""
    found = [n for n in tree.nodes if n.bl_idname == "CompositorNodeRLayers" and n.scene in (scene, None)]
    if not found:
        found = [tree.nodes.new("CompositorNodeRLayers")]
        found[0].scene = scene
        found[0].location = (min(n.location.x for n in tree.nodes) - 300, 0)
    return found[0].outputs["Image"]


def remove_behind_movers(imported: Imported, scene: bpy.types.Scene) -> None:
    """Take the group out of the scene's compositor again and join what it came between."""
    tree = find_tree(scene)
    for node in find_behind_movers(imported, scene):
        image = node.inputs["Image"]
        came = image.links[0].from_socket if image.is_linked else None
        goes = [link.to_socket for link in node.outputs["Image"].links]
        if _FILM in node:
            scene.render.film_transparent = node[_FILM]
        group = node.node_tree
        tree.nodes.remove(node)
        if came is not None:
            for socket in goes:
                tree.links.new(came, socket)
        remove_unused([group])
