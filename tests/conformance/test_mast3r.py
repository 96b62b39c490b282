"""Conformance with MASt3R on the recorded subset: it agrees, and whatever does not is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recipe import TINY_MATCHING, matching_net

from . import mast3r_network
from .__main__ import main
from .mast3r_network import check_heads, check_loading, check_published_keys, check_small

RECORDED = Path(__file__).parent.parent / "fixtures" / "mast3r"


@pytest.mark.slow
def test_the_recorded_subset_agrees(capsys):
    assert main(["mast3r", str(RECORDED)]) == 0
    out = capsys.readouterr().out
    assert " FAIL" not in out
    for line in ("landscape.raw_mlp2", "manyar.view1.desc_conf", "post.c.desc_conf", "up.img", "published_keys.json"):
        assert line in out
    assert "model_small_io portrait" in out  # which the subset does not have
    assert "absent" in out


def wrong(rows) -> list[str]:
    return [row.name for row in rows if row.ok is False]


@pytest.mark.parametrize(
    ("name", "check"),
    [("landscape.dec2.7", check_small), ("manyar.view2.desc", check_small), ("post.b.conf", check_heads)],
)
def test_one_wrong_number_is_noticed(tmp_path, name, check):
    folder = Path(shutil.copytree(RECORDED, tmp_path / "copy"))
    with np.load(folder / "model_small_io.npz") as file:
        arrays = dict(file)
    arrays[name].flat[7] += 1e-3 * np.abs(arrays[name]).max()
    np.savez(folder / "model_small_io.npz", **arrays)
    assert wrong(check(folder)) == [f"model_small_io {name}"]


def test_an_array_that_the_network_has_not_is_noticed(tmp_path):
    folder = Path(shutil.copytree(RECORDED, tmp_path / "copy"))
    with np.load(folder / "model_small_io.npz") as file:
        np.savez(folder / "model_small_io.npz", **file, **{"landscape.view3.pts3d": np.zeros(3)})
    assert wrong(check_small(folder)) == ["model_small_io landscape.view3.pts3d"]


def test_wrong_names_shapes_and_sizes_are_noticed(tmp_path):
    keys = json.loads((RECORDED / "published_keys.json").read_text())
    keys["enc_norm.weight"] = [1023]
    keys["one.more"] = keys.pop("dec_norm.bias")
    (tmp_path / "published_keys.json").write_text(json.dumps(keys))
    rows = {row.name: row for row in check_published_keys(tmp_path)}
    assert rows["published_keys.json"].deviation == 3
    table = json.loads((RECORDED / "loader_table.json").read_text())
    table[3]["out_wh"] = [512, 272]
    (tmp_path / "loader_table.json").write_text(json.dumps(table))
    assert wrong(check_loading(tmp_path)) == ["loader_table.json"]


def test_the_full_size_check_notices_wrong_weights_and_answers(tmp_path, monkeypatch):
    """With a tiny network in the full one's place, whose weights follow the same formula."""
    monkeypatch.setattr(mast3r_network, "MatchingConfig", lambda: TINY_MATCHING)
    net = matching_net()
    rng = np.random.default_rng(0)
    pictures = {f"img{n}_u8": rng.integers(0, 256, (3, 32, 48), np.uint8) for n in (1, 2)}
    answers = mast3r_network.forward_arrays(net, pictures, "")
    weight = net.get_parameter("enc_norm.weight").double()
    sums = torch.stack([weight.sum(), weight.square().sum(), weight[0], weight[-1]]).numpy()
    recorded = {**pictures, "view2.desc": answers["view2.desc"], "enc1": answers["enc1"], "wsum.enc_norm.weight": sums}
    path = tmp_path / "model_full_formula.npz"
    np.savez(path, **recorded)
    assert wrong(mast3r_network.check_full_size(tmp_path)) == []
    np.savez(path, **{**recorded, "wsum.enc_norm.weight": sums * (1 + 1e-6), "enc1": answers["enc1"] * 1.01})
    assert wrong(mast3r_network.check_full_size(tmp_path)) == ["wsum", "model_full_formula enc1"]


def test_what_nothing_reads_is_named(tmp_path, capsys):
    shutil.copy(RECORDED / "loader_table.json", tmp_path)
    (tmp_path / "model_small_more.npz").write_bytes(b"")
    assert main(["mast3r", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "model_small_more.npz" in out
    assert "no check reads it" in out


def test_an_empty_folder_fails(tmp_path, capsys):
    assert main(["mast3r", str(tmp_path)]) == 1
    assert "nothing was compared" in capsys.readouterr().out
