"""Results: a client is safe from the list of files that a server sends."""

import shutil
from collections import namedtuple

import pytest

from blender_addon.wire import results
from blender_addon.wire.errors import UserError
from blender_addon.wire.results import check_files, check_room

GOOD = [("capture.json", 10), ("depth.npy", 2**33), *((f"rgb_{i:04d}.png", 10**6) for i in range(2000))]


def test_the_files_of_a_capture_are_taken():
    check_files(GOOD, len(GOOD))
    check_files(GOOD[:100], len(GOOD))  # a page of them


@pytest.mark.parametrize(
    ("files", "total"),
    [
        ([("a.png", 1), ("a.png", 1)], 2),
        ([("a.png", 1), ("A.PNG", 1)], 2),
        ([("nul", 1)], 1),
        ([("COM1.png", 1)], 1),
        ([("aux.tar.gz", 1)], 1),
        ([("a.", 1)], 1),
        ([("a", 2**41)], 1),
        ([(f"{i}", 2**33) for i in range(200)], 200),
        ([("a", 1)], 10**9),
        ([("a", 1), ("b", 1)], 1),
    ],
    ids=["twice", "twice on Windows", "nul", "com1", "aux", "dot", "huge", "huge together", "many", "more than told"],
)
def test_any_other_list_is_refused_before_anything_is_written(files, total):
    with pytest.raises(UserError, match="The backend lists a result"):
        check_files(files, total)


def test_a_list_that_never_ends_is_refused():
    with pytest.raises(UserError, match="no capture has"):
        check_files([(f"{i}", 0) for i in range(results.FILES_MAX + 1)], 2**31)


def test_a_result_must_fit_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(3 * 10**9))
    check_room(tmp_path, 2 * 10**9)
    with pytest.raises(UserError, match=r"needs 2\.9 GB and the disk of .* has 3\.0 GB left"):
        check_room(tmp_path, 2_900_000_000)
