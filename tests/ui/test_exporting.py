"""The export operator: every format from a script, and what it says when there is nothing to export."""

import bpy
import pytest

from blender_addon.scene.exporting import FORMATS


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_one_call(format, scene, capture_folder, tmp_path):
    bpy.ops.kinora.import_capture(directory=str(capture_folder))
    target = tmp_path / f"out{FORMATS[format].suffix}"
    assert bpy.ops.kinora.export(filepath=str(target), format=format) == {"FINISHED"}
    assert target.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_without_a_capture_it_says_so(scene, tmp_path):
    with pytest.raises(RuntimeError, match="Import a capture first"):
        bpy.ops.kinora.export(filepath=str(tmp_path / "a.chan"), format="CHAN")


def test_a_range_of_ones_own(scene, capture_folder, tmp_path):
    bpy.ops.kinora.import_capture(directory=str(capture_folder))
    options = {"use_scene_range": False, "frame_start": 2, "frame_end": 3}
    bpy.ops.kinora.export(filepath=str(tmp_path / "a.chan"), format="CHAN", **options)
    assert [line.split()[0] for line in (tmp_path / "a.chan").read_text().splitlines()] == ["2", "3"]
