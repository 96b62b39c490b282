"""Where an import stands in the world: floor, origin, axes and scale, all as moves of its root object and nothing else.

Every move is a similarity of the world with its fixed point in the world's origin (but for those that shift), so that
one keeps what another has set: axes and scale keep the floor at z = 0, the floor keeps an origin that lies on it, and
the root's own scale, turn and parent do not matter. Camera and points share the root, so the plate matches after it.
"""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from ..wire.errors import UserError
from .conventions import BLENDER_FROM_CAPTURE
from .imported import CAMERA, PLATE, ROLE, Imported
from .orient import Orientation, find_orientation

#: Custom properties of the root: how it was placed when it was imported, and which axis a new floor keeps.
PLACED, AXIS = "kinora_placed", "kinora_axis"

_TRANSFORM = ("location", "rotation_euler", "rotation_quaternion", "rotation_axis_angle", "scale")


def remember_place(root: bpy.types.Object, blender_from_capture: np.ndarray) -> None:
    """Keep the (4, 4) matrix that an import was placed with, for `reset`."""
    root[PLACED] = [float(v) for v in np.asarray(blender_from_capture).ravel()]


def world_matrix(root: bpy.types.Object, view_layer: bpy.types.ViewLayer) -> np.ndarray:
    """(4, 4) where the root is now, also when it was moved since Blender last looked."""
    if root.parent is None and not root.constraints:
        return np.array(root.matrix_basis, np.float64)
    view_layer.update()
    return np.array(root.matrix_world, np.float64)


def place(imported: Imported, matrix: np.ndarray, view_layer: bpy.types.ViewLayer) -> None:
    """Put the root at a (4, 4) world matrix. Raises UserError, with nothing changed, when something else holds it."""
    root = imported.root
    if root.library is not None or not root.is_editable:
        raise UserError(f"{root.name} is linked from another file", "make it local or a library override")
    held = _holder(root)
    if held:
        raise UserError(f"{root.name} cannot be moved: {held}", "remove that, or parent it to an empty and move that")
    before = {name: tuple(getattr(root, name)) for name in _TRANSFORM}
    scale = size_of(world_matrix(root, view_layer))
    root.matrix_world = Matrix(matrix)
    view_layer.update()
    if np.abs(world_matrix(root, view_layer) - matrix).max() > 1e-4 * max(1.0, np.abs(matrix).max()):
        for name, value in before.items():
            setattr(root, name, value)
        raise UserError(f"{root.name} cannot be turned under its parent, which is stretched", "unparent it first")
    _scale_clipping(imported, size_of(matrix) / scale)


def _holder(root: bpy.types.Object) -> str:
    """What would take the root back to where it was; empty when nothing does."""
    if any(not c.mute and c.influence > 0 for c in root.constraints):
        return "it has a constraint"
    animation = root.animation_data
    if animation is None:
        return ""
    moving = ("location", "rotation", "scale", "delta_")
    curves = [c for c in animation.drivers]
    if animation.action is not None and animation.action_slot is not None:
        bags = [strip.channelbag(animation.action_slot) for layer in animation.action.layers for strip in layer.strips]
        curves += [c for bag in bags if bag is not None for c in bag.fcurves]
    return "it is animated" if any(c.data_path.startswith(moving) for c in curves) else ""


def _scale_clipping(imported: Imported, factor: float) -> None:
    """Blender states clipping distances in world units, so they follow the scale: nothing comes or goes at them."""
    for camera in (*imported.objects(CAMERA), *imported.objects(PLATE)):
        if camera.type == "CAMERA" and abs(factor - 1) > 1e-6:
            camera.data.clip_start *= factor
            camera.data.clip_end *= factor


def size_of(matrix: np.ndarray) -> float:
    """The scale of a (4, 4) matrix as one number."""
    return float(np.abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3))


def _scaled(factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1.0])


def _shifted(offset: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _turned(rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix


def _move(imported: Imported, change: np.ndarray, view_layer: bpy.types.ViewLayer) -> None:
    """Apply a (4, 4) `change` of the world to the root."""
    place(imported, change @ world_matrix(imported.root, view_layer), view_layer)


def set_floor(imported: Imported, points: np.ndarray, view_layer: bpy.types.ViewLayer) -> float:
    """Make the plane through (N, 3) world points, three or more, the floor z = 0, with the cameras above it.

    The direction that was y (or x, if Set Axis chose it) before is so afterwards. Returns the largest distance of a
    point from the plane. Raises UserError when the points lie on one line.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        raise UserError("A floor needs three points", "choose three points that are not on one line")
    mean = points.mean(axis=0)
    _, extent, axes = np.linalg.svd(points - mean, full_matrices=False)
    if extent[1] < 1e-3 * max(extent[0], 1e-12):
        raise UserError("The points of the floor lie on one line", "choose three points that are not on one line")
    normal = axes[2]
    camera = _camera_side(imported, view_layer)
    side = normal @ ((camera - mean) if camera is not None else (0, 0, 1))
    if abs(side) < 1e-9:
        side = normal[2]
    normal = normal * (1.0 if side >= 0 else -1.0)
    rotation = _upright(normal, imported.root.get(AXIS, "Y"))
    change = _shifted((0, 0, -float((rotation @ mean)[2]))) @ _turned(rotation)
    _move(imported, change, view_layer)
    return float(np.abs((points - mean) @ normal).max())


def _camera_side(imported: Imported, view_layer: bpy.types.ViewLayer) -> np.ndarray | None:
    """(3,) where the camera is now in the world; None when it was deleted."""
    if imported.camera is None:
        return None
    view_layer.update()
    return np.array(imported.camera.matrix_world.translation, np.float64)


def _upright(normal: np.ndarray, keep: str) -> np.ndarray:
    """(3, 3) rotation that takes a unit normal to z and leaves the heading of the world's `keep` axis as it is."""
    x, y = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    along_x = np.cross(y, normal), np.cross(normal, np.cross(y, normal))
    along_y = np.cross(np.cross(normal, x), normal), np.cross(normal, x)
    right, ahead = along_x if keep == "X" else along_y
    if np.linalg.norm(right) < 0.1:  # the axis that is to be kept is upright itself
        right, ahead = along_y if keep == "X" else along_x
    forth = 1.0 if normal[2] >= 0 else -1.0  # of what stood on its head the heading stays, too
    return np.stack([forth * right / np.linalg.norm(right), forth * ahead / np.linalg.norm(ahead), normal])


def set_origin(imported: Imported, point: np.ndarray, view_layer: bpy.types.ViewLayer, *, keep_height: bool) -> None:
    """Move the capture so that a (3,) world point is the world's origin; with `keep_height` along the floor only."""
    offset = -np.asarray(point, np.float64)
    if keep_height:
        offset[2] = 0
    _move(imported, _shifted(offset), view_layer)


def set_axis(
    imported: Imported, start: np.ndarray, end: np.ndarray, axis: str, view_layer: bpy.types.ViewLayer
) -> None:
    """Turn the capture about the world's z until the way from `start` to `end` heads along axis 'X' or 'Y'.

    Raises UserError when the two (3,) world points are one above the other.
    """
    way = np.asarray(end, np.float64) - np.asarray(start, np.float64)
    level = np.linalg.norm(way[:2])
    if level < 1e-3 * max(np.linalg.norm(way), 1e-9):
        raise UserError("The two points show no direction on the floor", "choose two that are not above each other")
    c, s = way[:2] / level
    along_x = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    rotation = along_x if axis == "X" else np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ along_x
    _move(imported, _turned(rotation), view_layer)
    imported.root[AXIS] = axis


def set_scale(
    imported: Imported, start: np.ndarray, end: np.ndarray, length: float, view_layer: bpy.types.ViewLayer
) -> float:
    """Scale the capture about the world's origin until two (3,) world points are `length` apart; returns the factor.

    `length` is in Blender units, which the scene's unit settings name. Raises UserError for points that coincide.
    """
    distance = float(np.linalg.norm(np.asarray(end, np.float64) - np.asarray(start, np.float64)))
    if distance < 1e-9:
        raise UserError("The two points are at one place", "choose two points whose distance you know")
    scale_about_origin(imported, length / distance, view_layer)
    return length / distance


def scale_about_origin(imported: Imported, factor: float, view_layer: bpy.types.ViewLayer) -> None:
    """Scale the capture about the world's origin, so that a floor at z = 0 stays there."""
    _move(imported, _scaled(factor), view_layer)


def set_camera_height(imported: Imported, height: float, view_layer: bpy.types.ViewLayer, *, by_scale: bool) -> float:
    """Put the camera of the current frame `height` Blender units above z = 0; returns the factor of the scale.

    `by_scale` scales the capture about the origin, so that its floor stays; otherwise the capture is moved up or
    down. Raises UserError when the camera is gone, or not above the floor where it is to be scaled.
    """
    camera = _camera_side(imported, view_layer)
    if camera is None:
        raise UserError("The camera of the capture was deleted", "import it again")
    if not by_scale:
        _move(imported, _shifted((0, 0, height - camera[2])), view_layer)
        return 1.0
    if camera[2] < 1e-6 * max(1.0, np.abs(camera).max()):
        raise UserError("The camera is not above the floor, z = 0", "use Set Floor first, or move instead of scaling")
    _move(imported, _scaled(height / camera[2]), view_layer)
    return float(height / camera[2])


def auto_orient(imported: Imported, view_layer: bpy.types.ViewLayer) -> Orientation:
    """Find up axis and floor anew and stand the capture on it; the root keeps its scale.

    Raises UserError when the capture is not where it was.
    """
    orientation = find_orientation(imported.capture())
    scale = size_of(world_matrix(imported.root, view_layer))
    place(imported, _scaled(scale) @ orientation.blender_from_capture, view_layer)
    imported.root.pop(AXIS, None)
    return orientation


def reset(imported: Imported, view_layer: bpy.types.ViewLayer) -> None:
    """Put the root back as it was imported, at scale 1."""
    placed = imported.root.get(PLACED)
    matrix = BLENDER_FROM_CAPTURE if placed is None else np.array(placed, np.float64).reshape(4, 4)
    place(imported, matrix, view_layer)
    imported.root.pop(AXIS, None)


def selected_points(context: bpy.types.Context) -> np.ndarray:
    """(N, 3) world points: the selected vertices in Edit Mode, else the selected objects that are no part of an import.

    The active object comes last.
    """
    if context.mode == "EDIT_MESH":
        found = []
        for ob in context.objects_in_mode:
            ob.update_from_editmode()
            world = np.array(ob.matrix_world, np.float64)
            vertices = np.empty(len(ob.data.vertices) * 3)
            ob.data.vertices.foreach_get("co", vertices)
            chosen = np.empty(len(ob.data.vertices), bool)
            ob.data.vertices.foreach_get("select", chosen)
            found.append(vertices.reshape(-1, 3)[chosen] @ world[:3, :3].T + world[:3, 3])
        return np.concatenate(found) if found else np.empty((0, 3))
    objects = [ob for ob in context.selected_objects if ob.get(ROLE) is None]
    objects.sort(key=lambda ob: ob == context.view_layer.objects.active)
    return np.array([ob.matrix_world.translation for ob in objects], np.float64).reshape(-1, 3)
