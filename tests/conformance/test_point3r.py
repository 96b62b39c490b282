"""Conformance with Point3R on the recorded subset: it agrees, and whatever does not is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from backend.nets import rope3d
from backend.nets.point3r_heads import ModulatedNorm

from . import point3r_network
from .__main__ import main
from .point3r_network import check_formula, check_keys

RECORDED = Path(__file__).parent.parent / "fixtures" / "point3r"
PARTS = ("published-keys", "streams", "formula-networks", "other-files")


def wrong(rows) -> list[str]:
    return [row.name for row in rows if row.ok is False]


def test_the_recorded_subset_agrees(capsys):
    assert main(["point3r", str(RECORDED), "--only", *PARTS]) == 0
    out = capsys.readouterr().out
    assert " FAIL" not in out
    for line in ("full512_keys.txt", "tiny_hash pts_world", "tiny_hash pts_world__encfp16", "tiny_hash f2_mem_out"):
        assert line in out
    assert "tiny_dpt" in out  # which the subset does not have
    assert "absent" in out


CHANGED = ("pts_world", "ptr_feat_f2_b0", "ptr_count", "f1_img_mem", "camera_pose__encfp16")


def test_wrong_numbers_unknown_arrays_and_other_weights_are_noticed(tmp_path):
    shutil.copy(RECORDED / "tiny_hash.json", tmp_path)
    with np.load(RECORDED / "tiny_hash.npz") as file:
        arrays = dict(file)
    for name in CHANGED:
        arrays[name].flat[0] += 1 if arrays[name].dtype.kind == "i" else 2e-3 * np.abs(arrays[name]).max()
    more = {"rgb_world": np.zeros(3), "probe__enc_norm.weight": np.zeros(8, np.float32)}
    np.savez(tmp_path / "tiny_hash.npz", **arrays, **more)
    assert set(wrong(check_formula(tmp_path))) == {f"tiny_hash {name}" for name in (*CHANGED, *more)}


def only_base_100(monkeypatch):
    """As the name RoPE3D100 has it, whose number the published network passes over."""
    one = rope3d._layout.__wrapped__
    monkeypatch.setattr(rope3d, "BASES", (100.0,))
    monkeypatch.setattr(rope3d, "_layout", one)


def scale_before_shift(monkeypatch):
    def forward(self, x, pose):
        scale, shift = self.mlp(pose).chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift

    monkeypatch.setattr(ModulatedNorm, "forward", forward)


def half_precision_throughout(monkeypatch):
    monkeypatch.setattr(point3r_network.WatchedNet, "half", property(lambda self: True, lambda self, half: None))


@pytest.mark.parametrize(
    ("change", "differs", "agrees"),
    [
        (only_base_100, "f1_dec_last", "f0_dec_last"),
        (scale_before_shift, "pts_world", "f0_dec_last"),
        (half_precision_throughout, "f0_enc", "pts_world__encfp16"),
    ],
)
def test_a_network_that_is_a_little_different_fails(monkeypatch, change, differs, agrees):
    change(monkeypatch)
    found = wrong(check_formula(RECORDED))
    assert f"tiny_hash {differs}" in found
    assert f"tiny_hash {agrees}" not in found


def test_wrong_names_and_shapes_are_noticed(tmp_path):
    lines = (RECORDED / "full512_keys.txt").read_text().replace("enc_norm.weight 1024", "enc_norm.weight 1023")
    (tmp_path / "full512_keys.txt").write_text(lines.replace("dec_norm.bias", "one.more"))
    (row,) = check_keys(tmp_path)
    assert row.deviation == 3
    assert "enc_norm.weight" in row.note


def test_an_empty_folder_fails(tmp_path, capsys):
    assert main(["point3r", str(tmp_path)]) == 1
    assert "nothing was compared" in capsys.readouterr().out
