"""Poses, triangulation, criteria and figures: what is recorded agrees, and whatever does not is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from . import mast3r_misc
from .test_mast3r import RECORDED, wrong

CHECKS = (
    mast3r_misc.check_pose,
    mast3r_misc.check_triangulation,
    mast3r_misc.check_criteria,
    mast3r_misc.check_localisation,
    mast3r_misc.others,
)


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_recorded_agrees(check):
    rows = list(check(RECORDED))
    assert any(row.ok for row in rows)
    assert not wrong(rows)


@pytest.mark.parametrize("check", CHECKS[:4])
def test_a_part_that_is_not_there_is_said_to_be_absent(check, tmp_path):
    (row,) = check(tmp_path)
    assert (row.ok, row.note) == (None, "absent")


def changed(folder: Path, name: str, change) -> Path:
    """The recorded misc.npz in `folder` with one array changed."""
    with np.load(RECORDED / "misc.npz") as file:
        arrays = dict(file)
    arrays[name] = change(arrays[name])
    np.savez(folder / "misc.npz", **arrays)
    (folder / "misc.json").write_bytes((RECORDED / "misc.json").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("check", "name", "change", "noticed"),
    [
        (CHECKS[0], "pnp.is_outlier", np.logical_not, {"misc pnp.is_outlier"}),
        (CHECKS[0], "pnp.cv2.cam2world", lambda a: a + 0.01 * np.eye(4, k=3), {"misc pnp.cv2.cam2world, its errors"}),
        (CHECKS[1], "tri.out", lambda a: a * 1.001, {"misc tri.out"}),
        (CHECKS[2], "loss.is_metric", np.logical_not, {"misc.json regr_optmetric_conf", "misc.json regr_gtscale"}),
        (CHECKS[2], "loss.desc_conf1", lambda a: a * 1.01, {"misc.json conf_match", "misc.json conf_match_prod"}),
    ],
)
def test_one_wrong_array_is_noticed(check, name, change, noticed, tmp_path):
    assert noticed <= set(wrong(check(changed(tmp_path, name, change))))


def test_one_wrong_figure_is_noticed(tmp_path):
    recorded = json.loads((RECORDED / "misc.json").read_text())
    recorded["losses"]["ap"] += 3e-4
    stats = recorded["aggregate_stats"]
    stats["text"] = stats["text"].replace("acc@0.5m,5deg=60", "acc@0.5m,5deg=40").replace("(1.5)", "(1.6)")
    recorded["new"] = 1
    (tmp_path / "misc.json").write_text(json.dumps(recorded))
    (tmp_path / "misc.npz").write_bytes((RECORDED / "misc.npz").read_bytes())
    assert wrong(mast3r_misc.check_criteria(tmp_path)) == ["misc.json ap"]
    names = ["aggregate_stats median_angular_error", "aggregate_stats acc@0.5m,5deg"]
    assert wrong(mast3r_misc.check_localisation(tmp_path)) == names
    (row,) = mast3r_misc.others(tmp_path)
    assert row.ok is False
    assert "new" in row.note
