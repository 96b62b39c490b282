"""A saved .blend plays and renders in a Blender that has never heard of the add-on."""

import subprocess
import sys

import bpy
import imageio.v3 as iio
import numpy as np

from blender_addon.scene.images import use_relative_paths
from tests.scene.captures import imported
from tests.worlds import as_capture, room

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


def test_a_farm_without_the_addon_renders_every_frame_in_the_plates_colours(tmp_path, scene):
    world = room(4, 48, 32)
    # Broad blotches, so that a rendered pixel has the colour of one point and not of its neighbours.
    flat = (world.rgb // 64 * 64 + 32).astype(np.uint8)
    flat[:] = np.where(world.dynamic[..., None], (230, 40, 40), (60, 120, 180))
    world.rgb[:] = flat
    imported(as_capture(world), tmp_path, scene, storage="frames")
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
