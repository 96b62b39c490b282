"""docs/cluster.md against the programs: they take every command line on it, and a farm's does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from backend.__main__ import main, parser
from backend.wire import read_capture
from tests.serving import clip_that

from .contract import WORKER

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
OURS = [line.split("   ")[0] for line in re.findall(r"-m backend ([^\n`\"]+)", PAGE) if "..." not in line]
RAYS = re.findall(r"bin/ray start ([^`]+)`", PAGE)


def test_our_command_lines_are_taken():
    assert len(OURS) >= 4
    for line in OURS:
        arguments = shlex.split(line)
        parser(arguments).parse_args(arguments)


def test_rays_command_lines_are_taken():
    from ray.scripts.scripts import start

    assert len(RAYS) == 2
    for line in RAYS:
        start.make_context("start", shlex.split(line))


def test_a_farm_is_told_by_the_exit_code(tmp_path, monkeypatch, capsys):
    (line,) = [line for line in OURS if line.startswith("reconstruct")]
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    for deed, code in (("work", 0), ("work", 0), ("refuse", 1)):
        clip, out = clip_that(tmp_path, deed), tmp_path / "captures" / "shot"
        words = line.replace("shot.mov", str(clip)).replace("captures/shot", str(out))
        assert main(shlex.split(words), WORKER) == code
        assert read_capture(out).frame_count == 2  # one that failed leaves the one before
    assert "The camera never moves" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["shot"]
