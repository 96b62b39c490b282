"""Contents that go from a new datablock into an earlier one, which stays where the artist uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from .changes import Changes
from .keys import key, keyed, unkey
from .paths import kept

_CLIP_LENS = (
    "sensor_width",
    "pixel_aspect",
    "focal_length_pixels",
    "principal_point_pixels",
    "distortion_model",
    "brown_k1",
    "brown_k2",
)
_ROW_TIME = ("frame_start", "frame_duration", "frame_offset", "use_auto_refresh", "use_cyclic")
_ROW = ("source", "clip", "image", "frame_method", "display_depth", "alpha", "show_expanded", "show_background_image")
_KEY_FLOATS = {"co": 2, "handle_left": 2, "handle_right": 2}
#: Camera paths whose sizes differ by less than this, as a natural logarithm, are called of one size.
_SAME_SIZE = 0.02
_KEY_ENUMS = ("interpolation", "easing", "handle_left_type", "handle_right_type")


def show_files_of(new: bpy.types.ID, old: bpy.types.ID, changes: Changes) -> None:
    """Let an image or movie clip show the files that another one shows; a clip takes its time and lens too."""
    changes.item(old, "kinora_folder", new["kinora_folder"])
    changes.set(old, "filepath", kept(Path(bpy.path.abspath(new.filepath)), old.filepath))
    if isinstance(old, bpy.types.MovieClip):
        for name in ("frame_start", "frame_offset"):
            changes.set(old, name, getattr(new, name))
        for name in _CLIP_LENS:
            changes.set(old.tracking.camera, name, getattr(new.tracking.camera, name))


def copy_keys(new: bpy.types.ID, new_path: str, old: bpy.types.ID, path: str, changes: Changes) -> None:
    """Give `path` of an earlier datablock the keys, or the lack of keys, of `new_path` of a new one.

    A curve that stays keeps its modifiers, group and colour.
    """
    theirs = sorted(keyed(new, new_path), key=lambda curve: curve.array_index)
    if not theirs:
        if keyed(old, path):
            changes.last(lambda: unkey(old, path))
        return
    columns = [_read(curve) for curve in theirs]
    frames = columns[0]["co"].reshape(-1, 2)[:, 0]
    values = np.stack([column["co"].reshape(-1, 2)[:, 1] for column in columns], axis=1)
    hold = bool((columns[0]["interpolation"] == 0).all())
    before = {curve.array_index: _read(curve) for curve in keyed(old, path)}
    had_action = old.animation_data is not None and old.animation_data.action is not None

    def restore() -> None:
        for curve in keyed(old, path):
            if curve.array_index in before:
                _write(curve, before[curve.array_index])
        if not before:
            unkey(old, path)
        if not had_action:
            action = old.animation_data.action
            old.animation_data_clear()
            bpy.data.batch_remove([action])

    changes.do(lambda: key(old, None, path, frames, values, hold=hold), restore)


def size_note(old: bpy.types.Object | None, new: bpy.types.Object) -> str:
    """What an artist must know when two captures of a clip differ in size, seen from their camera paths; else empty.

    No engine knows the true size of what it sees, so each has a scale of its own. Only frames with both count.
    """
    paths = []
    for camera in filter(None, (old, new)):
        columns = [_read(curve)["co"].reshape(-1, 2) for curve in keyed(camera, "location")]
        paths.append({frame: [column[i, 1] for column in columns] for i, frame in enumerate(_frames_of(columns))})
    both = sorted(paths[0].keys() & paths[-1].keys()) if len(paths) == 2 else []
    if len(both) < 2:
        return ""
    before, now = (np.array([path[frame] for frame in both], np.float64).std(axis=0) for path in paths)
    spread_before, spread_now = np.linalg.norm(before), np.linalg.norm(now)
    if min(spread_before, spread_now) < 1e-6 or abs(np.log(spread_now / spread_before)) < _SAME_SIZE:
        return ""
    return (
        f"The new capture is {spread_now / spread_before:.3g} times the size of the earlier one, and its root kept its "
        "scale: check what you placed, or use Set Scale"
    )


def _frames_of(columns: list[np.ndarray]) -> list[float]:
    """The frames that all curves have keys at, in the same order."""
    whole = len(columns) == 3 and all(np.array_equal(c[:, 0], columns[0][:, 0]) for c in columns)
    return columns[0][:, 0].tolist() if whole else []


def _read(curve: bpy.types.FCurve) -> dict[str, np.ndarray]:
    points = curve.keyframe_points
    read = {}
    for name, width in _KEY_FLOATS.items():
        read[name] = np.empty(len(points) * width, np.float32)
        points.foreach_get(name, read[name])
    for name in _KEY_ENUMS:
        read[name] = np.empty(len(points), np.int32)
        points.foreach_get(name, read[name])
    return read


def _write(curve: bpy.types.FCurve, read: dict[str, np.ndarray]) -> None:
    curve.keyframe_points.clear()
    curve.keyframe_points.add(len(read["easing"]))
    for name in (*_KEY_ENUMS, *_KEY_FLOATS):
        curve.keyframe_points.foreach_set(name, read[name])


def shown_in(row: bpy.types.CameraBackgroundImage) -> bpy.types.ID | None:
    """What a row of a camera's background images shows."""
    return row.clip if row.source == "MOVIE_CLIP" else row.image


def copy_row(new: bpy.types.CameraBackgroundImage, data: bpy.types.Camera, changes: Changes) -> Any:
    """Add a row like `new` to a camera's background images."""
    row = data.background_images.new()
    changes.do(lambda: None, lambda: data.background_images.remove(row))
    for name in _ROW:
        setattr(row, name, getattr(new, name))
    for name in ("use_render_undistorted", "proxy_render_size"):
        setattr(row.clip_user, name, getattr(new.clip_user, name))
    return row


def copy_row_time(new: bpy.types.CameraBackgroundImage, row: bpy.types.CameraBackgroundImage, changes: Changes) -> None:
    """Let a row show its sequence at the times of another row."""
    for name in _ROW_TIME:
        changes.set(row.image_user, name, getattr(new.image_user, name))


def nodes_with(group: bpy.types.NodeTree) -> Iterator[bpy.types.Node]:
    """Every compositor node that shows a group."""
    trees = [t for t in bpy.data.node_groups if t.bl_idname == "CompositorNodeTree"]
    trees += [scene.node_tree for scene in bpy.data.scenes if getattr(scene, "node_tree", None)]  # before 5.0
    for tree in dict.fromkeys(trees):
        yield from (node for node in tree.nodes if getattr(node, "node_tree", None) == group)


def replace_group(node: bpy.types.Node, group: bpy.types.NodeTree, changes: Changes) -> None:
    """Give a group node another group; outputs of the same name stay connected."""
    old = node.node_tree
    links = [(link.from_socket.name, link.to_socket) for link in node.id_data.links if link.from_node == node]

    def put(tree: bpy.types.NodeTree) -> None:
        node.node_tree = tree
        for link in [link for link in node.id_data.links if link.from_node == node]:
            node.id_data.links.remove(link)
        for name, socket in links:
            if name in node.outputs:
                node.id_data.links.new(node.outputs[name], socket)

    changes.do(lambda: put(group), lambda: put(old))
