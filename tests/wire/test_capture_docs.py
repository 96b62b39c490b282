"""`docs/capture.md` against the code: its example runs, and it names everything that a capture holds."""

import re
from pathlib import Path

import numpy as np
import pytest

from backend.export import CAPTURE_FILES, FORMATS
from backend.export.glb import POINTS_IN_ALL, POINTS_PER_FRAME
from backend.export.ply import VERTEX
from backend.geometry.camera import unproject
from blender_addon.wire.capture import SCHEMA, read_metadata, write_capture
from tests.worlds import as_capture, room

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "capture.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_capture(as_capture(room(3), plate_size=(192, 128)), tmp_path / "my_capture", CAPTURE_FILES)


def test_the_example_reads_a_capture(folder, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(compile(example, "docs/capture.md", "exec"), names)
    world = room(3)
    truth = unproject(world.depth[0], world.intrinsics[0], world.world_from_camera[0])
    np.testing.assert_allclose(names["points"], truth, atol=1e-6)
    assert capsys.readouterr().out.startswith("(64, 96, 3) [")


def test_every_file_is_on_the_page(folder):
    for name in read_metadata(folder)["files"]:
        assert f"| `{re.sub('_[0-9]{4}', '_%04d', name)}` |" in PAGE, name


def test_every_key_is_on_the_page(folder):
    info = read_metadata(folder)
    for key, value in info.items():
        assert f"`{key}" in PAGE, key
        rows = value if isinstance(value, dict) and key != "files" else {}
        for name in rows:
            assert f"`{name}`" in PAGE or f"`{key}.{name}`" in PAGE, f"{key}.{name}"
    for row in (info["frames"][0], info["processed"]["plate_map"], *info["images"].values()):
        for name in row:
            assert f"`{name}`" in PAGE, name


def test_the_numbers_on_the_page_are_those_of_the_code():
    assert PAGE.startswith(f"# The capture: schema {SCHEMA}\n")
    assert f"at most {POINTS_PER_FRAME:,} points" in PAGE
    assert f"at most {POINTS_IN_ALL:,} (24 bytes each)" in PAGE
    assert all(f"| `{name}` |" in PAGE for name in FORMATS)
    assert all(re.search(rf"[`\s]{name}[`\s]", PAGE) for name in VERTEX.names)
