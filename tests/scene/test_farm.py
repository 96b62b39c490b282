"""A farm without the add-on renders every storage of a saved .blend in the plate's colours, wherever the files lie."""

import shutil
import subprocess
import sys

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.images import use_relative_paths
from blender_addon.scene.imported import LINKED, PROJECTED, imported_in
from blender_addon.scene.nodes import find_modifier, set_input
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import convert_storage
from blender_addon.scene.stored import EMBEDDED, find_storage
from tests.scene.captures import imported
from tests.worlds import as_capture, room

pytestmark = pytest.mark.slow

FRAMES = (1, 2, 4)  # first, N/2 and last of four

FARM = """
import pathlib, sys, bpy
for blend in pathlib.Path(sys.argv[1]).glob("*.blend"):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    for frame in (1, 2, 4):
        bpy.context.scene.frame_set(frame)
        bpy.context.scene.render.filepath = str(blend.with_name(f"{blend.stem}_{frame}.png"))
        bpy.ops.render.render(write_still=True)
assert not any("blender_addon" in name for name in sys.modules)
"""

STORAGES = ("embedded frames", "embedded split", "linked", "projected points", "projected mesh")


@pytest.fixture(scope="module")
def world():
    """Broad blotches, so that a rendered pixel has the colour of one point and not of its neighbours."""
    world = room(4, 96, 64)
    world.rgb[:] = np.where(world.dynamic[..., None], (230, 40, 40), (60, 120, 180))
    return world


@pytest.fixture(scope="module")
def rendered(world, tmp_path_factory):
    """What a Blender with factory settings and no add-on makes of each storage, {(storage, frame): (H, W, 3)}."""
    made, farm = tmp_path_factory.mktemp("artist"), tmp_path_factory.mktemp("farm") / "project"
    for storage in STORAGES:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        (made / storage).mkdir()
        bpy.ops.wm.save_as_mainfile(filepath=str(made / f"{storage}.blend"))
        kept = "split" if "split" in storage else "frames"
        imported(as_capture(world), made / storage, scene, storage=kept)
        one = imported_in(scene)[0]
        if "embedded" not in storage:
            kind = LINKED if storage == "linked" else PROJECTED
            finish(convert_storage(one, EMBEDDED, kind))
            if "mesh" in storage:
                nodes = find_modifier(find_storage(one, PROJECTED).players[0])
                set_input(nodes, "Surface", True)
                set_input(nodes, "Max Step", 0.1)  # so coarse a grid sees the side wall in large steps
        scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 4, "CPU"
        scene.cycles.use_denoising = False
        scene.cycles.pixel_filter_type = "BOX"  # a pixel is what it covers, not its neighbours too
        scene.view_settings.view_transform = "Standard"
        use_relative_paths(made / f"{storage}.blend")
        bpy.ops.wm.save_mainfile()
        shutil.rmtree(made / storage)  # the capture is not needed any more
    shutil.move(made, farm)
    command = [sys.executable, "-I", "-c", FARM, str(farm)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {(s, f): iio.imread(farm / f"{s}_{f}.png")[..., :3].astype(int) for s in STORAGES for f in FRAMES}


@pytest.mark.parametrize("storage", STORAGES)
def test_frames_are_rendered_in_the_plates_colours(rendered, world, storage):
    for frame in FRAMES:
        off = np.abs(rendered[storage, frame] - world.rgb[frame - 1]).max(axis=-1)
        assert (off <= 3).mean() > 0.9  # the rest is along edges: points overlap there, a mesh is torn
    assert not np.array_equal(rendered[storage, 1], rendered[storage, 4])
