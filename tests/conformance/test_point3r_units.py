"""The small parts of the streaming network: what is recorded agrees, and whatever does not is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .point3r_units import CHECKS
from .test_mast3r import wrong

RECORDED = Path(__file__).parent.parent / "fixtures" / "point3r"
#: Part -> its file, an array of it, and a change of that array.
CHANGES = {
    "turns-3d": ("unit_rope3d", "out_nopose_16", lambda a: a[..., ::-1]),
    "turns-2d": ("unit_rope2d", "out_fp16_64", lambda a: a * 1.01),
    "fusion": ("unit_fusion", "mixed_is_new", np.logical_not),
    "numbers": ("unit_post", "c2w", lambda a: np.swapaxes(a, -1, -2)),
    "cameras": ("unit_camera", "focal_weiszfeld", lambda a: a * 1.001),
    "pictures": ("unit_preprocess", "size_table", lambda a: a + (np.arange(a.shape[1]) == 3)),
}


@pytest.mark.parametrize("part", CHECKS)
def test_what_is_recorded_agrees(part):
    rows = list(CHECKS[part](RECORDED))
    assert any(row.ok for row in rows)
    assert not wrong(rows)


@pytest.mark.parametrize("part", CHECKS)
def test_a_file_that_is_not_there_is_said_to_be_absent(part, tmp_path):
    (row,) = CHECKS[part](tmp_path)
    assert (row.ok, row.note) == (None, "absent")


@pytest.mark.parametrize("part", CHANGES)
def test_one_wrong_array_is_noticed(part, tmp_path):
    file, name, change = CHANGES[part]
    with np.load(RECORDED / f"{file}.npz") as recorded:
        arrays = dict(recorded)
    arrays[name] = change(arrays[name])
    np.savez(tmp_path / f"{file}.npz", **arrays, another=np.zeros(1))
    rows = list(CHECKS[part](tmp_path))
    assert wrong(rows) == [f"{file} {name}"]
    assert any(row.ok is None and row.name.endswith(" another") for row in rows)
