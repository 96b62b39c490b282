"""Motion blur: points streak along their own velocity, and never from one frame's cloud to the next one's."""

from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.nodes import input_path, set_input
from tests.scene.captures import imported, player_of
from tests.worlds import as_capture, film, look

SIZE = 64  # pixels of the render, which are the grid's


def one_point(frames=3):
    """White points that are one a frame, 2 m away, each half a metre above the one before."""
    intrinsics = np.tile([SIZE, SIZE, SIZE / 2, SIZE / 2], (frames, 1)).astype(float)
    cameras = np.stack([look(0, 0, 0, (0, -0.5 * i, 0)) for i in range(frames)])
    capture = as_capture(film(cameras, intrinsics, SIZE, SIZE))
    depth = np.zeros_like(capture.depth)
    depth[:, SIZE // 2, SIZE // 2] = 2.0
    return replace(capture, depth=depth, rgb=np.full_like(capture.rgb, 255))


def key_clip_frame(player, values):
    """Key the player's Clip Frame, in straight lines from key to key."""
    for frame, value in values.items():
        set_input(player.modifiers[0], "Clip Frame", value)
        player.keyframe_insert(input_path(player.modifiers[0], "Clip Frame"), frame=frame)
    layers = player.animation_data.action.layers
    curves = [c for layer in layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]
    for key in (key for curve in curves for key in curve.keyframe_points):
        key.interpolation = "LINEAR"


def streak(capture, folder, scene, shutter=0.5, **inputs) -> tuple[int, int]:
    """Width and height in pixels of what the second frame's point leaves in a render with motion blur."""
    player = player_of(imported(capture, folder, scene, point_size=2.0, show_plate=False))
    for name, value in inputs.items():
        set_input(player.modifiers[0], name.replace("_", " "), value)
    if "Use_Clip_Frame" in inputs:  # four frames of the clip in one of the scene
        key_clip_frame(player, {1: -2.0, 3: 6.0})
    scene.frame_set(2)
    scene.camera.animation_data_clear()  # only points move
    render = scene.render
    render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 256, "CPU"
    scene.cycles.use_denoising = scene.cycles.use_adaptive_sampling = False
    render.use_motion_blur, render.motion_blur_shutter = True, shutter
    render.film_transparent, render.use_compositing = True, False
    scene.view_settings.view_transform = "Standard"
    render.filepath = str(folder / "blur.png")
    bpy.ops.render.render(write_still=True)
    seen = iio.imread(render.filepath)[..., 3] > 6
    return int(seen.any(axis=0).sum()), int(seen.any(axis=1).sum())


@pytest.mark.parametrize("inputs", [{}, {"shutter": 2.0}, {"Speed": 4.0}, {"Use_Clip_Frame": True}], ids=str)
def test_a_cloud_is_not_smeared_into_the_next_one(inputs, tmp_path, scene):
    """Between frames the point jumps 16 pixels; one shutter shows one cloud, so it leaves a dot."""
    start = {"Start_Frame": 2.0} if "Speed" in inputs else {}
    width, height = streak(one_point(), tmp_path, scene, **inputs, **start)
    assert 1 <= width <= 4
    assert height <= 4


@pytest.mark.parametrize(("speed", "length_px"), [(1.0, 12.0), (0.5, 6.0)])
def test_velocity_blurs_by_what_the_point_moves_while_the_shutter_is_open(speed, length_px, tmp_path, scene):
    """18 m/s to the right, 24 frames a second, half of it open: 0.375 m, which at 2 m are 12 pixels."""
    capture = one_point()
    velocity = np.zeros((*capture.depth.shape, 3), np.float16)
    velocity[..., 0] = 18.0
    start = 2.0 if speed != 1.0 else 1.0  # frame 2 shows another cloud, within the clip
    width, height = streak(replace(capture, velocity=velocity), tmp_path, scene, Speed=speed, Start_Frame=start)
    dot = 2
    assert width == pytest.approx(length_px + dot, abs=1.5)
    assert height <= 4
