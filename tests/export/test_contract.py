"""What every export owes its user, whatever its format."""

import subprocess
import sys
from pathlib import Path

import pytest

from backend.export import FORMATS
from backend.wire import UserError

from .conftest import FRAMES, LOST

ROOT = Path(__file__).resolve().parents[2]
every_format = pytest.mark.parametrize("export", FORMATS.values(), ids=FORMATS)


@every_format
def test_an_export_lists_exactly_the_files_it_wrote(export, exact, tmp_path):
    report = export(exact, tmp_path / "out")
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written == set(report.files) != set()
    assert (report.frames, report.skipped) == (FRAMES, ())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@every_format
def test_a_frame_without_a_camera_is_skipped_and_named(export, holed, tmp_path):
    report = export(holed, tmp_path / "out")
    assert (report.frames, report.skipped) == (FRAMES - 1, (LOST,))
    assert f"skipped without a camera: {LOST}" in str(report)


@every_format
def test_an_export_never_mixes_with_what_is_there(export, exact, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty; choose a new folder"):
        export(exact, tmp_path)
    with pytest.raises(UserError, match=r"mine.txt is a file; choose another"):
        export(exact, tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from backend.export import FORMATS
from backend.wire import UserError
from tests.worlds import as_capture, room

capture = as_capture(room(2))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # no file may grow beyond 100 bytes, as on a full disk
for name, export in FORMATS.items():
    try:
        export(capture, Path(sys.argv[1]) / name)
    except UserError as error:
        print(name, error.hint)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a file")
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.splitlines() == [f"{name} choose another folder or free some space" for name in FORMATS], (
        child.stderr
    )
    assert list(tmp_path.iterdir()) == []
