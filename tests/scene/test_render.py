"""Points render in the plate's colours, ghosts fainter the older they are, in a Blender without the add-on too."""

import subprocess
import sys
from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.images import use_relative_paths
from blender_addon.scene.nodes import set_input
from tests.scene.captures import imported, player_of
from tests.worlds import as_capture, film, look, room

ELSEWHERE = """
import sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
scene = bpy.context.scene
for frame in (1, 4):
    scene.frame_set(frame)
    scene.render.filepath = f"{sys.argv[2]}/{frame}.png"
    bpy.ops.render.render(write_still=True)
assert not any("blender_addon" in name for name in sys.modules)
"""


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_a_farm_without_the_addon_renders_every_frame_in_the_plates_colours(storage, tmp_path, scene):
    world = room(4, 48, 32)
    # Broad blotches, so that a rendered pixel has the colour of one point and not of its neighbours.
    flat = (world.rgb // 64 * 64 + 32).astype(np.uint8)
    flat[:] = np.where(world.dynamic[..., None], (230, 40, 40), (60, 120, 180))
    world.rgb[:] = flat
    imported(as_capture(world), tmp_path, scene, storage=storage)
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 4, "CPU"
    scene.view_settings.view_transform = "Standard"
    use_relative_paths(tmp_path / "farm.blend")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "farm.blend"))
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(tmp_path / "farm.blend"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for i, frame in ((0, 1), (3, 4)):
        rendered = iio.imread(tmp_path / f"{frame}.png")[..., :3].astype(int)
        assert rendered.shape == (32, 48, 3)
        off = np.abs(rendered - flat[i]).max(axis=-1)
        assert (off <= 3).mean() > 0.85  # the rest is the rim of the box, whose points overlap their neighbours
    assert not np.array_equal(iio.imread(tmp_path / "1.png"), iio.imread(tmp_path / "4.png"))


def test_ghosts_fade_with_their_age(tmp_path, scene):
    """Three red points, one a frame, 16 pixels apart: the one of this frame is opaque, older ones less and less."""
    lens = np.tile([64, 64, 32, 32], (3, 1)).astype(float)
    capture = as_capture(film(np.stack([look(0, 0, 0, (0.5 * i, 0, 0)) for i in range(3)]), lens, 64, 64))
    depth = np.zeros_like(capture.depth)
    depth[:, 32, 32] = 2.0  # the camera moves on, so what it sees here comes to stand 16 pixels further right
    red = np.broadcast_to(np.array([200, 0, 0], np.uint8), capture.rgb.shape)
    player = player_of(imported(replace(capture, depth=depth, rgb=red), tmp_path, scene, point_size=6.0))
    for name, value in (("Ghosts Before", 2), ("Ghost Step", 1)):
        set_input(player.modifiers[0], name, value)
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 64, "CPU"
    scene.cycles.use_denoising = scene.cycles.use_adaptive_sampling = False
    scene.render.film_transparent, scene.render.use_compositing = True, False
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(3)
    scene.render.filepath = str(tmp_path / "ghosts.png")
    bpy.ops.render.render(write_still=True)
    rendered = iio.imread(tmp_path / "ghosts.png").astype(int)
    for column, alpha in ((32, 1.0), (16, 2 / 3), (1, 1 / 3)):
        assert rendered[32, column, 3] / 255 == pytest.approx(alpha, abs=0.01)
        assert np.abs(rendered[32, column, :3] - (200, 0, 0)).max() <= 3
