"""The demo's own promises: it replaces nothing but an earlier demo, and its pictures say what is in them."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from backend.evaluate import compare
from backend.truth import Truth
from backend.wire import UserError
from benchmarks import demo, preview
from tests.worlds import as_capture, hand_held, room


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path):
    out = tmp_path / "demo"
    demo.check_output(out)
    out.mkdir()
    (out / "preview.png").touch()
    demo.check_output(out)
    (out / "thesis.doc").touch()
    with pytest.raises(UserError, match=r"thesis\.doc"):
        demo.check_output(out)


def test_a_demo_that_cannot_write_says_so_and_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo").write_text("a file", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["demo", "--out", str(tmp_path / "demo")])
    assert demo.main() == 1
    said = capsys.readouterr().err.strip()
    assert "is a file" in said
    assert len(said.splitlines()) == 1
    assert os.listdir(tmp_path) == ["demo"]


def test_the_table_has_every_part_once_and_the_stages_under_their_part():
    world = room(4)
    truth = Truth.from_plates(world.world_from_camera, world.intrinsics, world.depth, world.dynamic, step=2)
    capture = replace(as_capture(world), timings=(("Reading the clip", 1.0), ("Camera", 2.0)))
    parts = [("Starting the backend", 0.5), ("Reconstructing through the add-on", 3.5), ("Importing into Blender", 0.2)]
    text = demo.table(capture, compare(capture, world.dynamic, truth), 1234, parts, 4.2)
    order = [
        "Starting",
        "Reconstructing",
        "  Reading",
        "  Camera",
        "Importing",
        "All together",
        "Points",
        "Camera path",
    ]
    at = [text.index(f"\n{name}") for name in order]
    assert at == sorted(at)
    assert "1,234" in text


def test_pictures_of_one_size_stand_in_a_sheet_with_captions():
    sheet = preview.compose([preview.Panel(np.full((90, 160, 3), 255, np.uint8), "White")] * 4, columns=3)
    pixels = np.asarray(sheet)
    assert (pixels[preview.GAP + 10, preview.GAP + 10] == 255).all()
    caption = pixels[preview.GAP + preview.PANEL[1] : preview.GAP + preview.PANEL[1] + preview.CAPTION]
    assert (caption == preview.INK).all(-1).any()
    assert sheet.height > 2 * preview.PANEL[1]


def test_a_perfect_path_lies_on_the_truth_and_a_wrong_one_does_not():
    truth = hand_held(20)
    wrong = truth.copy()
    wrong[:, 1, 3] += 0.3 * np.sin(np.arange(20))
    grey = [(preview.path_picture(path, truth) == (110, 112, 120)).all(-1).sum() for path in (truth, wrong)]
    orange = [(preview.path_picture(path, truth) == preview.ACCENT).all(-1).sum() for path in (truth, wrong)]
    assert grey[1] > grey[0] > 0
    assert orange[1] > orange[0]
