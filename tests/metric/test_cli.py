"""`python -m backend scale`: what it prints, what it leaves in the capture, and what it refuses."""

from __future__ import annotations

import re

import pytest

from backend.__main__ import main
from backend.wire import read_capture, write_capture
from tests.pair_oracle import Errors
from tests.worlds import World, as_capture, hand_held_room, room

from .test_scale import in_units


@pytest.fixture(scope="module")
def world() -> World:
    return hand_held_room(6)


def test_it_measures_and_records(world, knows, tmp_path, capsys):
    knows(world, Errors(scale=0.04))
    folder = write_capture(in_units(world, 0.25), tmp_path / "shot")
    assert main(["scale", str(folder), "--frames", "6"]) == 0
    found = read_capture(folder).scale
    assert found.low < 0.25 < found.high
    out = capsys.readouterr().out
    assert re.search(rf"metres per unit +{found.metres_per_unit:.4g}\n", out)
    assert re.search(rf"pairs that agree +{found.pairs}\n", out)
    assert main(["scale", str(folder), "--frames", "5"]) == 0  # again, in the place of the first
    assert read_capture(folder).scale != found


def test_what_is_refused_leaves_the_capture_as_it_was(world, knows, tmp_path, capsys):
    knows(world, Errors(scale=1.5))
    folder = write_capture(in_units(world, 0.25), tmp_path / "shot")
    before = (folder / "capture.json").read_bytes()
    assert main(["scale", str(folder)]) == 1
    assert "disagree about the scale" in capsys.readouterr().err
    assert main(["scale", str(folder), "--frames", "2"]) == 1
    assert "2 frames are too few" in capsys.readouterr().err
    assert (folder / "capture.json").read_bytes() == before


def test_a_metric_capture_needs_no_network(tmp_path, capsys):
    folder = write_capture(as_capture(room(3)), tmp_path / "shot")
    assert main(["scale", str(folder)]) == 1
    assert "its unit is the metre already" in capsys.readouterr().err


def test_without_weights_it_says_which_to_get(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "none"))
    folder = write_capture(in_units(room(3), 2.0), tmp_path / "shot")
    assert main(["scale", str(folder)]) == 1
    assert "weights get mast3r" in capsys.readouterr().err
