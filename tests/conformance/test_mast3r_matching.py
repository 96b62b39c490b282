"""Conformance of MASt3R's matching on recorded answers: it passes, and notices another one."""

from pathlib import Path

import numpy as np
import pytest

from .mast3r_matching import check_matching, check_windows

RECORDED = Path(__file__).parent.parent / "fixtures" / "mast3r"


@pytest.mark.parametrize(("check", "at_least"), [(check_matching, 50), (check_windows, 18)])
def test_recorded_matching_is_met(check, at_least):
    rows = list(check(RECORDED))
    assert [str(row) for row in rows if row.ok is not True] == []
    assert len(rows) >= at_least


@pytest.mark.parametrize(
    ("check", "file", "name"),
    [
        (check_matching, "fastnn", "s8_dot.xy2"),
        (check_matching, "fastnn", "extract_sym8.conf"),
        (check_windows, "coarse_to_fine", "land.crops_b"),
        (check_windows, "coarse_to_fine", "homo1.R"),
    ],
)
def test_another_answer_is_noticed(tmp_path, check, file, name):
    with np.load(RECORDED / f"{file}.npz") as stored:
        arrays = dict(stored)
    arrays[name] = arrays[name] + np.array(1, arrays[name].dtype)
    np.savez(tmp_path / f"{file}.npz", **arrays)
    failed = {row.name for row in check(tmp_path) if row.ok is False}
    assert failed
    assert all(name in row for row in failed)


@pytest.mark.parametrize("check", [check_matching, check_windows])
def test_what_is_not_there_is_absent(tmp_path, check):
    assert [row.note for row in check(tmp_path)] == ["absent"]
