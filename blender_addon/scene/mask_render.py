"""Splines of the mask editor as pictures: exactly the pixels whose centres are inside, at the size of the plate.

Blender draws the splines, with their shape keys, tracks and holes. It fades a pixel or two outside of them, so each
layer is drawn by itself, cut where Blender begins to fade, and only then put together with the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from ..wire.errors import UserError
from ..wire.folders import staged_folder
from .grey import read_grey, write_grey
from .images import timing_of
from .imported import Imported
from .mask_editing import EDITED_NAME

_FULL = 1 - 1e-5


def render_masks(
    imported: Imported, mask: bpy.types.Mask, folder: Path, progress: Callable[[float], None] = lambda fraction: None
) -> None:
    """Write a Mask of the mask editor as edited masks of the plate's size, one for each frame of the capture.

    A pixel is white when its centre is inside the splines; feathers are left out, and layers with an opacity below a
    half do not count. Raises UserError when the folder exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already", "choose a new folder for the masks")
    capture = imported.capture()
    frames = timing_of(imported, capture).scene_frames
    with staged_folder(folder, "The masks") as staging, _drawing(mask, capture.clip.plate_size) as drawing:
        for frame, scene_frame in enumerate(frames):
            progress(frame / len(frames))
            inside = drawing.at(int(scene_frame))
            write_grey(staging / EDITED_NAME.format(frame), inside.astype(np.uint8) * 255)


@contextmanager
def _drawing(mask: bpy.types.Mask, size: tuple[int, int]) -> Iterator[_Drawing]:
    """A temporary scene of (width, height) pixels that evaluates a mask and renders one."""
    scene = bpy.data.scenes.new("Kinora Masks")
    own = None
    try:
        if hasattr(scene, "compositing_node_group"):
            own = tree = scene.compositing_node_group = bpy.data.node_groups.new(scene.name, "CompositorNodeTree")
            tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
            result = tree.nodes.new("NodeGroupOutput")
        else:
            scene.use_nodes = True
            tree = scene.node_tree
            tree.nodes.clear()
            result = tree.nodes.new("CompositorNodeComposite")
        tree.nodes.new("CompositorNodeMask").mask = mask
        source = tree.nodes.new("CompositorNodeMask")
        full = tree.nodes.new("ShaderNodeMath" if own else "CompositorNodeMath")
        full.operation = "GREATER_THAN"
        full.inputs[1].default_value = _FULL
        tree.links.new(source.outputs[0], full.inputs[0])
        tree.links.new(full.outputs[0], result.inputs[0])
        render = scene.render
        render.resolution_x, render.resolution_y = size
        render.resolution_percentage = 100
        render.use_sequencer = False
        render.dither_intensity = 0.0
        render.engine = "CYCLES" if hasattr(scene, "cycles") else render.engine
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode, render.image_settings.color_depth = "BW", "8"
        scene.view_settings.view_transform = "Raw"
        with tempfile.TemporaryDirectory(prefix="kinora-masks-") as scratch:
            yield _Drawing(mask, scene, source, Path(scratch) / "layer.png")
    finally:
        bpy.data.scenes.remove(scene)
        if own is not None:
            bpy.data.node_groups.remove(own)


@dataclass(frozen=True)
class _Drawing:
    mask: bpy.types.Mask
    scene: bpy.types.Scene
    source: bpy.types.Node
    path: Path

    def at(self, frame: int) -> np.ndarray:
        """(H, W) bool: what is inside the mask at a frame of the scene."""
        self.scene.frame_set(frame)
        value = np.zeros((self.scene.render.resolution_y, self.scene.render.resolution_x))
        with self._as_it_is_now() as self.source.mask:
            layers = self.source.mask.layers
            drawn = [(one.alpha, one.invert, one.blend) for one in layers]
            hidden = [one.hide_render or one.alpha == 0 for one in layers]
            for one in layers:
                one.hide_render, one.invert, one.alpha, one.falloff, one.blend = True, False, 1.0, "LINEAR", "ADD"
            for one, (alpha, invert, blend), unseen in zip(layers, drawn, hidden):
                if not unseen:
                    one.hide_render = False
                    inside = self._draw()
                    one.hide_render = True
                    value = _blended(value, alpha * (inside != invert), alpha, blend)
        return value > 0.5

    def _draw(self) -> np.ndarray:
        self.path.unlink(missing_ok=True)
        self.scene.render.filepath = str(self.path)
        bpy.ops.render.render(write_still=True, scene=self.scene.name)
        if not self.path.is_file():
            raise UserError("Blender did not render the mask", "stop other renders and try again")
        return read_grey(self.path) > 0.5

    @contextmanager
    def _as_it_is_now(self) -> Iterator[bpy.types.Mask]:
        """A copy of the mask with its animated values as the scene has them: a render takes those of the window's."""
        view_layer = self.scene.view_layers[0]
        view_layer.update()
        now = self.mask.evaluated_get(view_layer.depsgraph).copy()
        try:
            now.animation_data_clear()
            yield now
        finally:
            bpy.data.masks.remove(now)


def _blended(value: np.ndarray, layer: np.ndarray, alpha: float, blend: str) -> np.ndarray:
    """What Blender makes of the layers so far and the next one, whose values hold its opacity."""
    return np.clip(
        {
            "MERGE_ADD": lambda: value + layer * (1 - value),
            "MERGE_SUBTRACT": lambda: value - layer * value,
            "ADD": lambda: value + layer,
            "SUBTRACT": lambda: value - layer,
            "LIGHTEN": lambda: np.maximum(value, layer),
            "DARKEN": lambda: np.minimum(value, layer),
            "MUL": lambda: value * layer,
            "REPLACE": lambda: value * (1 - alpha) + layer,
            "DIFFERENCE": lambda: np.abs(value - layer),
        }[blend](),
        0.0,
        1.0,
    )
