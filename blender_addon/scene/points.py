"""Point clouds: a capture's pixels as PointCloud datablocks with colour, confidence and motion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import bpy
import numpy as np

from ..wire.capture import Capture
from .attributes import CLIP_FRAME, COLOR, CONFIDENCE, DYNAMIC, OBJECT, PIXEL_ANGLE, VELOCITY
from .conventions import rays_matrix
from .steps import Step, Steps, finish, remove_all
from .workbench import evaluated, workbench

#: Property of a frame's object: which frame of the capture it is, from 0.
FRAME = "kinora_frame"
#: Blender sets colours of bytes one by one, 50 ms a million: so many in one cloud would hold its window up.
MANY = 300_000


class CloudFactory:
    """Makes PointClouds of a given size, without operators and on every Blender from 4.5 on.

    PointCloud.resize is missing before 5.1 and corrupts memory in it, so an empty cloud comes out of a Mesh to
    Points node once per size, and is copied (0.01 ms) from then on (specs/blender.md, 2.3).
    """

    def __init__(self) -> None:
        self._blank: dict[int, bpy.types.PointCloud] = {}
        self._scratch = np.empty((0, 4), np.float32)
        self._tree: bpy.types.GeometryNodeTree | None = None
        self._made: list[bpy.types.ID] = []  # goes all at once in the end: in a large file each removal takes 2 ms

    def __enter__(self) -> CloudFactory:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._made:
            remove_all(self._made)

    def borrow(self, cloud: bpy.types.PointCloud) -> None:
        """Copy this cloud of the file for others of its size, so that no blank has to be made."""
        if len(cloud.points):
            self._blank.setdefault(len(cloud.points), cloud)

    def _to_points(self) -> bpy.types.GeometryNodeTree:
        """Nodes that make points of a mesh's vertices."""
        if self._tree is None:
            self._tree = bpy.data.node_groups.new("Kinora Mesh to Points", "GeometryNodeTree")
            self._made.append(self._tree)
            self._tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
            self._tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
            kinds = "NodeGroupInput", "GeometryNodeMeshToPoints", "NodeGroupOutput"
            for a, b in pairwise([self._tree.nodes.new(kind) for kind in kinds]):
                self._tree.links.new(a.outputs[0], b.inputs[0])
        return self._tree

    def new(self, name: str, positions: np.ndarray, **attributes: np.ndarray) -> bpy.types.PointCloud:
        """A cloud of (N, 3) positions with attributes.

        (N, 3) uint8 are sRGB colours and (N, 4) floats linear ones, (N,) bool and (N,) uint8 stay what they are, other
        floats are (N,) numbers or (N, 3) vectors.
        """
        return finish(self.steps(name, positions, **attributes))

    def steps(self, name: str, positions: np.ndarray, **attributes: np.ndarray) -> Steps[bpy.types.PointCloud]:
        """`new` in steps, one for each attribute: millions of points take a while."""
        count = len(positions)
        if count == 0:
            return bpy.data.pointclouds.new(name)
        if count not in self._blank:
            self._blank[count] = self._make_blank(count)
        cloud = self._blank[count].copy()
        _bare(cloud)
        cloud.name = name
        cloud.attributes["position"].data.foreach_set("vector", np.ascontiguousarray(positions, np.float32).ravel())
        for key, values in attributes.items():
            yield Step("Points", 0.5)
            if values.dtype == np.uint8 and values.ndim == 2:
                data = cloud.attributes.new(key, "BYTE_COLOR", "POINT").data
                data.foreach_set("color_srgb", self._rgba(values).ravel())  # 'color' would be linear
            elif values.dtype == np.uint8:
                data = cloud.attributes.new(key, "INT", "POINT").data
                data.foreach_set("value", np.ascontiguousarray(values, np.int32))
            elif values.ndim == 2 and values.shape[1] == 4:
                data = cloud.attributes.new(key, "FLOAT_COLOR", "POINT").data
                data.foreach_set("color", np.ascontiguousarray(values, np.float32).ravel())
            elif values.ndim == 2:
                data = cloud.attributes.new(key, "FLOAT_VECTOR", "POINT").data
                data.foreach_set("vector", np.ascontiguousarray(values, np.float32).ravel())
            elif values.dtype == bool:
                data = cloud.attributes.new(key, "BOOLEAN", "POINT").data
                data.foreach_set("value", np.ascontiguousarray(values))
            else:
                data = cloud.attributes.new(key, "FLOAT", "POINT").data
                data.foreach_set("value", np.ascontiguousarray(values, np.float32))
        cloud.update_tag()
        return cloud

    def _rgba(self, colors: np.ndarray) -> np.ndarray:
        """(N, 4) float32 of (N, 3) uint8, in memory that is used again: fresh pages cost more than the numbers."""
        if len(self._scratch) < len(colors):
            self._scratch = np.ones((len(colors), 4), np.float32)
        rgba = self._scratch[: len(colors)]
        for channel in range(3):
            np.multiply(colors[:, channel], np.float32(1 / 255), out=rgba[:, channel])
        return rgba

    def _make_blank(self, count: int) -> bpy.types.PointCloud:
        mesh = bpy.data.meshes.new("Kinora Vertices")
        mesh.vertices.add(count)
        ob = bpy.data.objects.new("Kinora Vertices", mesh)
        self._made += [ob, mesh]
        ob.modifiers.new("", "NODES").node_group = self._to_points()
        with workbench(ob) as scene:
            # The geometry set must live in a variable: its cloud dies with it.
            geometry = evaluated(ob, scene).evaluated_geometry()
            blank = geometry.pointcloud.copy()
        self._made.append(blank)
        _bare(blank)
        return blank


def _bare(cloud: bpy.types.PointCloud) -> None:
    """Take every attribute away but the places."""
    for name in [a.name for a in cloud.attributes if a.name != "position"]:
        cloud.attributes.remove(cloud.attributes[name])


def unproject(capture: Capture, frame: int, keep: np.ndarray) -> np.ndarray:
    """(N, 3) float32 points in the capture's world of the pixels of a frame where `keep` (H, W) is set."""
    width, height = capture.processed_size
    matrix = rays_matrix(capture.intrinsics[frame], capture.world_from_camera[frame])
    # A ray is affine in the pixel: the part of its column plus the part of its row. One axis at a time, since
    # NumPy is ten times slower over (H, W, 3).
    columns = np.outer(matrix[:, 0], np.arange(width) + 0.5).astype(np.float32)
    rows = (np.outer(matrix[:, 1], np.arange(height) + 0.5) + matrix[:, 2:]).astype(np.float32)
    centre = capture.world_from_camera[frame, :3, 3].astype(np.float32)
    depth = np.asarray(capture.depth[frame])
    if keep.all():
        points = np.empty((height, width, 3), np.float32)
        rows = rows[:, :, None]
    else:
        row, column = np.divmod(np.flatnonzero(keep), width)
        points = np.empty((len(row), 3), np.float32)
        depth, rows, columns = depth[row, column], rows[:, row], columns[:, column]
    for axis in range(3):
        plane = columns[axis] + rows[axis]
        plane *= depth
        plane += centre[axis]
        points[..., axis] = plane
    return points.reshape(-1, 3)


def select(pixels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The pixels (H, W, ...) where `keep` (H, W) is set, as (N, ...); no copy when that is all of them."""
    flat = np.asarray(pixels).reshape(-1, *pixels.shape[2:])
    return flat if keep.all() else flat.take(np.flatnonzero(keep), axis=0)  # many times faster than flat[keep]


def measured(capture: Capture, frame: int) -> np.ndarray:
    """(H, W) bool: pixels of a frame that have a place in the world."""
    if not capture.has_camera[frame]:
        return np.zeros(capture.depth.shape[1:], bool)
    depth = np.asarray(capture.depth[frame])
    return np.isfinite(depth) & (depth > 0)


def pixel_attributes(capture: Capture, frame: int, keep: np.ndarray) -> dict[str, np.ndarray]:
    """What every point of a frame carries besides its place; which mover it is and how fast, where that is known."""
    pixels = {COLOR: capture.rgb, CONFIDENCE: capture.confidence, DYNAMIC: capture.dynamic}
    optional = {OBJECT: capture.objects, VELOCITY: capture.velocity}
    pixels |= {name: values for name, values in optional.items() if values is not None}
    return {name: select(values[frame], keep) for name, values in pixels.items()}


def frame_cloud(
    capture: Capture, factory: CloudFactory, prefix: str, frame: int, keep: np.ndarray | None = None
) -> bpy.types.Object:
    """An object with the point cloud of a frame, named so that names sort as frames and bearing the frame's number.

    `keep` (H, W) bool restricts which pixels become points. A frame without a camera gives an empty cloud.
    """
    pixels = measured(capture, frame)
    if keep is not None:
        pixels &= keep
    name = frame_name(prefix, frame)
    positions = unproject(capture, frame, pixels) if pixels.any() else np.empty((0, 3), np.float32)
    return frame_object(name, frame, factory.new(name, positions, **pixel_attributes(capture, frame, pixels)))


def frame_name(prefix: str, frame: int) -> str:
    """Blender shows the clouds of a player in the order of their names, which have 63 bytes at most before 5.0."""
    return f"{prefix.encode()[:50].decode(errors='ignore')}_f{frame:05d}"


def frame_object(name: str, frame: int, cloud: bpy.types.PointCloud) -> bpy.types.Object:
    """The object of a frame's cloud: not to be selected, and knowing which frame it is whatever it is called."""
    ob = bpy.data.objects.new(name, cloud)
    ob[FRAME] = frame
    ob.hide_select = True
    return ob


def frame_clouds(
    capture: Capture, factory: CloudFactory, prefix: str, keep: np.ndarray | None = None
) -> Iterator[bpy.types.Object]:
    """`frame_cloud` of every frame of the capture, in order; `keep` (T, H, W) bool restricts them."""
    for frame in range(capture.frame_count):
        yield frame_cloud(capture, factory, prefix, frame, None if keep is None else keep[frame])


def pixel_angles(capture: Capture) -> np.ndarray:
    """(T,) what a pixel of the grid spans at unit distance: one over the focal length."""
    fx, fy = capture.intrinsics[:, :2].T
    return 1 / np.sqrt(fx * fy)


def mean_eye(capture: Capture) -> np.ndarray:
    """(3,) where the cameras of the capture stand on average."""
    return capture.world_from_camera[capture.has_camera, :3, 3].mean(axis=0)


def cloud_of(capture: Capture, keep: np.ndarray) -> dict[str, np.ndarray]:
    """What `CloudFactory.new` makes one cloud of, of the pixels `keep` (T, H, W) of all frames: arrays only, no bpy.

    A point's radius is half a pixel of its own camera. More than `MANY` points get their colours as floats.
    """
    parts: list[dict[str, np.ndarray]] = []
    for frame in np.flatnonzero(keep.any(axis=(1, 2))):
        positions = unproject(capture, frame, keep[frame])
        distance = np.linalg.norm(positions - capture.world_from_camera[frame, :3, 3], axis=1)
        radius = distance * pixel_angles(capture)[frame] / 2
        parts.append({"positions": positions, "radius": radius} | pixel_attributes(capture, frame, keep[frame]))
    if not parts:
        return {"positions": np.empty((0, 3), np.float32)}
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for key, values in arrays.items():  # here, where no window waits, to the numbers that Blender takes
        arrays[key] = values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values
    if len(arrays["positions"]) > MANY:
        arrays[COLOR] = linear_rgba(arrays[COLOR])
    return arrays


def linear_rgba(colors: np.ndarray) -> np.ndarray:
    """(N, 4) float32 linear colours of (N, 3) uint8 sRGB (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)
    rgba = np.ones((len(colors), 4), np.float32)
    rgba[:, :3] = linear[colors]
    return rgba


def carrier_cloud(capture: Capture, factory: CloudFactory, name: str, clip_frames: np.ndarray) -> bpy.types.PointCloud:
    """The player's own geometry: the T cameras as points, with their time and the angle of a pixel."""
    posed = np.flatnonzero(capture.has_camera)
    nearest = posed[np.abs(np.arange(capture.frame_count)[:, None] - posed).argmin(axis=1)]  # no NaN in geometry
    return factory.new(
        name,
        capture.world_from_camera[nearest, :3, 3],
        **{CLIP_FRAME: clip_frames.astype(np.float32), PIXEL_ANGLE: pixel_angles(capture)[nearest]},
    )
