"""`python -m backend localise` on real files, with the real worker: what is written is a capture like any other."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from backend.__main__ import main
from backend.export import CAPTURE_FILES
from backend.wire import read_capture, write_capture
from tests.footage import write_video
from tests.localise.sets import ROOM_M, errors, first, held_out, reference


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """The folder of the reference."""
    return write_capture(reference()[1], tmp_path_factory.mktemp("set") / "street", CAPTURE_FILES)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))


def run(*arguments) -> int:
    return main(["localise", *map(str, arguments), "--matcher", "classic", "--long-side", "128"])


def save(path, rgb) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def test_a_single_image(capture, tmp_path, capsys):
    """One of two numbered images, alone; its capture stands beside the reference unless a folder is given."""
    plate = held_out()
    for t in (0, 1):
        save(tmp_path / f"still_{t + 1}.png", plate.clip.frames[t])
    assert run(capture, tmp_path / "still_2.png", "--still", "--focal-px", 480) == 0
    found = read_capture(capture.parent / "still_2_in_street")
    assert found.frame_count == 1
    assert found.clip.image_names == ("still_2.png",)
    assert errors(found, plate.world_from_camera[1:2])[0][0] < 0.005 * ROOM_M
    assert found.plate_intrinsics[0, 0] == pytest.approx(480)
    assert found.engine.name == "localise"
    assert found.metric
    told = json.loads((found.folder / "capture.json").read_text())["shot"]["details"]["localised"]
    assert told["reference"]["folder"] == "street"
    assert told["matcher"] == "Classic"
    assert "frames registered" in capsys.readouterr().out


def test_a_video_with_an_unknown_lens(capture, tmp_path):
    plate = first(held_out(), 3)
    clip = write_video(tmp_path / "plate.mp4", plate.clip.frames, options={"crf": "12"})
    assert run(capture, clip, "--out", tmp_path / "out") == 0
    found = read_capture(tmp_path / "out")
    away, turned = errors(found, plate.world_from_camera)
    assert np.median(away) < 0.005 * ROOM_M
    assert np.median(turned) < 0.3
    assert found.plate_intrinsics[:, 0] == pytest.approx(480, rel=0.02)
    assert found.shot.focal_source == "solved"


def test_a_plate_of_another_set_leaves_nothing_behind(capture, tmp_path, capsys):
    save(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8))
    assert run(capture, tmp_path / "noise.png", "--out", tmp_path / "out") == 1
    assert "does not seem to belong to this capture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{tmp}", "{tmp}/a.png"), "is not a capture"),
        (("{set}", "{tmp}/no.png"), "There is no file"),
        (("{set}", "{tmp}/a.png", "--focal-px", "500", "--focal-mm", "30"), "given twice"),
        (("{set}", "{tmp}/a.png", "--focal-px", "-3"), "is none"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_is_begun(arguments, said, capture, tmp_path, capsys):
    save(tmp_path / "a.png", held_out().clip.frames[0])
    assert run(*(a.format(tmp=tmp_path, set=capture) for a in arguments)) == 1
    assert said in capsys.readouterr().err
