"""Conformance of MASt3R's alignment, graphs and retrieval: each part notices a wrong number in what was recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from .mast3r import CHECKS
from .mast3r_scene import FILES, read_scene

RECORDED = Path(__file__).parent.parent / "fixtures" / "mast3r"


@pytest.fixture
def copy(tmp_path):
    for name in (*FILES, "misc.npz", "misc.json"):
        shutil.copy(RECORDED / name, tmp_path)
    return tmp_path


def spoil(folder: Path, file: str, name: str, by: float = 0.01) -> None:
    with np.load(folder / file) as stored:
        arrays = dict(stored)
    array = arrays[name].copy()
    array.flat[array.size // 3] += max(by * np.abs(array).max(), by) if array.dtype.kind == "f" else 1
    np.savez(folder / file, **(arrays | {name: array}))


def wrong(folder: Path, part: str) -> list[str]:
    read_scene.cache_clear()
    rows = list(CHECKS[part](folder))
    assert rows
    return [row.name for row in rows if row.ok is False]


@pytest.mark.parametrize(
    "name",
    [
        *("setup.base_focals", "setup.core_depth", "setup.canon.0", "setup.canon2.0", "setup.canon_conf.0"),
        *("setup.canon_conf_mean", "setup.anchor_pix.0", "setup.anchor_idx.5", "setup.anchor_off.5"),
        *("setup.n_corres_ordered_pairs", "short.edges", "short.root"),
    ],
)
def test_a_wrong_setup_is_noticed(copy, name):
    spoil(copy, "ga_outputs.npz", name)
    assert wrong(copy, "alignment-setup") == [f"ga_outputs {name}"]


def test_the_setup_is_of_these_predictions(copy):
    spoil(copy, "ga_inputs.npz", "0_1.X_ii", by=1)
    assert "ga_outputs setup.canon.0" in wrong(copy, "alignment-setup")


@pytest.mark.slow
def test_wrong_losses_and_cameras_are_noticed(copy):
    spoil(copy, "ga_outputs.npz", "short.loss_per_iter")  # step 10 of 30
    assert wrong(copy, "alignment-losses") == ["short loss[:30]"]
    summary = json.loads((copy / "ga_summary.json").read_text())
    summary["cases"]["short"]["ate_sim3_rmse_m"] *= 0.9
    summary["cases"]["short"]["focals"][2] *= 1.01
    (copy / "ga_summary.json").write_text(json.dumps(summary))
    assert wrong(copy, "alignment-runs") == ["short ATE, mm", "short focals"]
    spoil(copy, "ga_outputs.npz", "short.cam2w")
    assert wrong(copy, "alignment-results") == ["ga_outputs short.sparse_pts3d_mean"]


def test_a_case_set_in_a_way_that_is_not_ours_is_not_judged(copy):
    summary = json.loads((copy / "ga_summary.json").read_text())
    summary["cases"]["short"]["settings"]["lora_depth"] = True
    (copy / "ga_summary.json").write_text(json.dumps(summary))
    read_scene.cache_clear()
    rows = [str(row) for row in CHECKS["alignment-setup"](copy)]
    assert any("tree of short" in row and "lora_depth" in row for row in rows)
    assert list(CHECKS["alignment-losses"](copy)) == []


def test_without_the_files_every_part_says_so(tmp_path):
    for part in ("alignment-setup", "alignment-losses", "alignment-runs", "scene-graphs", "retrieval"):
        assert all(row.note == "absent" for row in CHECKS[part](tmp_path))


@pytest.mark.parametrize("name", ["fps.4_3.keyframes", "fps.0_4.pairs"])
def test_a_wrong_graph_by_retrieval_is_noticed(copy, name):
    spoil(copy, "misc.npz", name)
    assert name in wrong(copy, "scene-graphs")


def test_a_wrong_scene_graph_is_noticed(copy):
    content = json.loads((copy / "misc.json").read_text())
    content["scene_graphs"]["9:swin"]["unordered"].pop()
    (copy / "misc.json").write_text(json.dumps(content))
    assert wrong(copy, "scene-graphs") == ["scene graph 9:swin"]


@pytest.mark.parametrize("name", ["ret.whitened", "ret.attention", "ret.sel_idx", "ret.global", "asmk.scores"])
def test_wrong_retrieval_is_noticed(copy, name):
    spoil(copy, "misc.npz", name)
    assert wrong(copy, "retrieval") == [f"misc {name}"]


@pytest.mark.slow
def test_a_solver_that_is_worse_than_the_original_is_noticed(copy):
    summary = json.loads((copy / "ga_summary.json").read_text())
    summary["cases"]["shared"]["ate_sim3_rmse_m"] = 1e-3
    (copy / "ga_summary.json").write_text(json.dumps(summary))
    with np.load(copy / "ga_scene_gt.npz") as stored:
        truth = dict(stored)
    truth["cam2w"][:, :3, 3] *= 1.02
    np.savez(copy / "ga_scene_gt.npz", **truth)
    scales = [f"solver, lens {lens}: scale" for lens in ("each", "shared")]
    assert wrong(copy, "own-solver") == [scales[0], "solver, lens shared: ATE, mm", scales[1]]
