"""The command line of conformance: it passes what agrees, and notices whatever does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.align.original import OriginalSettings, align_as_original
from backend.align.original_motion import motion_error, pair_ego_flow, solve_pairs
from backend.geometry.rigid import quaternions_from_matrices
from tests.align.synthetic import room_pairs

from .__main__ import main
from .alignment import intrinsics, pair_matrices
from .rows import near

RECORDED = Path(__file__).parent.parent / "fixtures" / "monst3r"


def save(path: Path, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Path:
    """A folder with one run of alignment on a synthetic room, answered by ourselves: every array, and all agree."""
    folder = tmp_path_factory.mktemp("recorded")
    truth = room_pairs(frame_count=4, width=24, height=16)
    p, flows = truth.predictions.to(torch.float32), truth.flows
    flow = flows.flow.float()
    settings = OriginalSettings(iterations=10)
    result = align_as_original(p, flows, settings)
    pairs, start, state = solve_pairs(p), result.start.state, result.state
    no_flow = align_as_original(p, None, settings, stop_after=1)
    with_flow = align_as_original(p, flows, OriginalSettings(iterations=1, flow_start=0.0))
    shift = start.pair_translation.numpy()
    parameters = np.column_stack(
        [
            quaternions_from_matrices(start.pair_rotation.numpy()),
            np.sign(shift) * np.log1p(np.abs(shift)),
            start.pair_scale.log().numpy() + 7,  # their mean is free
        ]
    )
    poses = state.world_from_camera.double().numpy()
    turn = np.roll(quaternions_from_matrices(poses[:, :3, :3]), 1, axis=1)
    answer = {f"pairviewer_K_{v}": intrinsics(getattr(pairs, f"focal_{v}"), p.size) for v in "ij"}
    for v in "ij":
        pose = getattr(pairs, f"world_from_{v}")
        answer |= {f"pairviewer_R_{v}": pose[:, :3, :3], f"pairviewer_T_{v}": pose[:, :3, 3:]}
    answer |= {
        "pairviewer_egoflow_ij_first": pair_ego_flow(pairs)[0][:2],
        "motion_error_mean": motion_error(p, flows),
        "dynamic_mask": result.dynamic,
        "init_poses": start.world_from_camera,
        "init_focals": start.focal_px,
        "init_depth": start.depth,
        "init_pw_poses": pair_matrices(start),
        "init_pw_params": parameters,
        "init_loss_noflow": no_flow.loss_curve[0, 0],
        "init_loss_withflow": with_flow.loss_curve[0, :2],
        "loss_curve": result.loss_curve,
        "final_poses": poses.astype(np.float32),
        "final_focals": state.focal_px,
        "final_K": intrinsics(state.focal_px, p.size),
        "final_depth": state.depth,
        "final_pw_poses": pair_matrices(state),
        "final_pw_scale": state.pair_scale,
        "final_loss": result.final_loss,
        "tum": np.column_stack([np.arange(len(poses)), poses[:, :3, 3], turn]),
        "im_conf": result.confidence,
        "im_conf_cleaned": result.cleaned_confidence,
    }
    save(folder / "ga" / "scene.npz", {"edges": p.edges, "dynamic_mask": truth.dynamic})
    names = {"pred_i": p.points_i, "pred_j": p.points_j, "conf_i": p.confidence_i, "conf_j": p.confidence_j}
    save(folder / "ga" / "pairs.npz", names)
    save(folder / "ga" / "flow.npz", {"flow": flow})
    save(folder / "ga" / "upstream_default.npz", answer)
    settings_text = {
        "temporal_smoothing_weight": 0.01,
        "translation_weight": 1.0,
        "flow_loss_weight": 0.01,
        "flow_loss_start_epoch": 0.1,
        "flow_loss_thre": 25,
        "shared_focal": True,
        "num_total_iter": 10,
    }
    (folder / "ga" / "metrics.json").write_text(json.dumps({"default": {"settings": settings_text}}))
    return folder


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def failed(output: str) -> list[str]:
    return [line for line in output.splitlines() if " FAIL" in line]


@pytest.mark.slow
def test_the_recorded_subset_agrees(capsys):
    assert main(["monst3r", str(RECORDED)]) == 0
    out = capsys.readouterr().out
    assert failed(out) == []
    for line in ("dpt_mini__portrait pts3d_2", "pairviewer_T_j", "pairs.json", "sha256_f32"):
        assert line in out
    assert "im_conf" in out  # which the subset does not have
    assert "absent" in out


def test_every_array_of_a_whole_run_is_compared(aligned, capsys):
    assert main(["monst3r", str(aligned)]) == 0
    out = capsys.readouterr().out
    with np.load(aligned / "ga" / "upstream_default.npz") as arrays:
        names = set(arrays.files) - {"final_poses", "final_focals", "final_depth", "final_pw_poses"}
    compared = [line for line in out.splitlines() if "  ok" in line]
    for name in names:
        assert any(name in line for line in compared), name
    for part in ("preprocessing", "network", "pairs.json"):
        assert any(line.startswith(part) and line.endswith("absent") for line in out.splitlines())


#: Which part must notice what.
NOTICED_BY = {
    "pair-solver": [*(f"pairviewer_{part}_{v}" for part in "RTK" for v in "ij"), "pairviewer_egoflow_ij_first"],
    "initialisation": ["init_poses", "init_focals", "init_depth", "init_pw_poses", "init_pw_params"],
    "losses": ["init_loss_noflow", "init_loss_withflow", "final_loss", "final_poses", "final_focals", "final_depth"],
    "first-steps": ["loss_curve"],
    "cleaning": ["im_conf", "im_conf_cleaned"],
}
NOTICED_BY["pair-solver"] += ["motion_error_mean", "dynamic_mask"]
NOTICED_BY["losses"] += ["final_pw_poses", "final_pw_scale", "final_K", "tum"]


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in NOTICED_BY.items() for name in names])
def test_one_wrong_array_is_noticed(aligned, tmp_path, capsys, part, name):
    folder = copy_of(aligned, tmp_path)
    path = folder / "ga" / "upstream_default.npz"
    with np.load(path) as file:
        arrays = dict(file)
    array = arrays[name]
    if array.dtype == bool:
        # Pixels on the threshold may fall to either side, so more than those are turned over.
        array = ~array
    elif name == "im_conf_cleaned":
        array = np.where(array == 0, 1.0, 0.0)
    else:
        array = array.copy()
        array.flat[array.size // 3] += 0.01 + 0.01 * np.abs(array).max()
    save(path, arrays | {name: array})
    assert main(["monst3r", str(folder), "--only", part]) == 1
    assert failed(capsys.readouterr().out)


def test_one_wrong_number_in_the_network_is_noticed(tmp_path, capsys):
    (tmp_path / "net").mkdir()
    for file in ("linear_mini.json", "linear_mini__landscape.npz"):
        shutil.copy(RECORDED / "net" / file, tmp_path / "net" / file)
    path = tmp_path / "net" / "linear_mini__landscape.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["dec2_2"][0, 3, 5] += 1e-3
    save(path, arrays)
    assert main(["monst3r", str(tmp_path)]) == 1
    assert ["linear_mini__landscape dec2_2" in line for line in failed(capsys.readouterr().out)] == [True]


@pytest.mark.slow
def test_wrong_weights_pictures_and_pairs_are_noticed(tmp_path, capsys):
    for part in ("net", "pairs", "preprocess"):
        shutil.copytree(RECORDED / part, tmp_path / part)

    def spoil(file: str, change) -> None:
        content = json.loads((tmp_path / file).read_text())
        change(content)
        (tmp_path / file).write_text(json.dumps(content))

    spoil("net/linear_mini.json", lambda c: c["tensors"]["mask_token"].update(sha256="0" * 64))
    spoil("pairs/pairs.json", lambda c: c["complete|N=5|sym=1|prefilter=none"].pop())
    spoil("pairs/counts.json", lambda c: c.update({"complete|N=5": 21}))
    spoil("preprocess/preprocess.json", lambda c: next(iter(c["video_frame_indices"].values())).append(99))
    shutil.copy(RECORDED / "preprocess" / "src_05_511x287.png", tmp_path / "preprocess" / "src_04_100x75.png")
    assert main(["monst3r", str(tmp_path)]) == 1
    lines = " ".join(failed(capsys.readouterr().out))
    for name in ("linear_mini recipe sha256", "pairs.json", "counts.json", "video_frame_indices", "src_04_100x75.png|"):
        assert name in lines


def test_a_damaged_file_fails_its_part_and_leaves_the_others(aligned, tmp_path, capsys):
    folder = copy_of(aligned, tmp_path)
    shutil.copytree(RECORDED / "pairs", folder / "pairs")
    path = folder / "ga" / "flow.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["monst3r", str(folder)]) == 1
    out = capsys.readouterr().out
    assert any("pairs.json" in line and " ok" in line for line in out.splitlines())
    assert failed(out)


def test_a_run_whose_settings_are_not_told_is_not_judged(aligned, tmp_path, capsys):
    folder = copy_of(aligned, tmp_path)
    (folder / "ga" / "upstream_default.npz").rename(folder / "ga" / "upstream_new.npz")
    assert main(["monst3r", str(folder), "--only", "losses"]) == 1  # nothing was compared
    assert "does not say how it was run" in capsys.readouterr().out


def test_what_nothing_reads_is_named(aligned, tmp_path, capsys):
    folder = copy_of(aligned, tmp_path)
    save(folder / "net" / "unknown__square.npz", {"enc1": np.zeros(3)})
    save(folder / "flow" / "raft.npz", {"flow": np.zeros(3)})
    with np.load(folder / "ga" / "upstream_default.npz") as file:
        save(folder / "ga" / "upstream_default.npz", dict(file) | {"covariances": np.zeros(3)})
    assert main(["monst3r", str(folder), "--only", "other-arrays", "other-files"]) == 1  # nothing was compared
    out = capsys.readouterr().out
    for name in ("net/unknown__square.npz", "flow/raft.npz", "upstream_default covariances"):
        assert any(line.startswith(name) and "not checked" in line for line in out.splitlines()), name
    assert len([line for line in out.splitlines() if "not checked" in line]) == 3


def test_an_empty_folder_and_a_missing_one_fail(tmp_path, capsys):
    assert main(["monst3r", str(tmp_path)]) == 1
    assert "nothing was compared" in capsys.readouterr().out
    assert main(["monst3r", str(tmp_path / "none")]) == 1


def test_a_part_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        main(["monst3r", str(tmp_path), "--only", "solvers"])


def test_nothing_that_is_not_comparable_passes():
    nan = float("nan")
    assert not near("shape", np.zeros(3), np.zeros(4), 1).ok
    assert not near("empty", np.zeros(0), np.zeros(0), 1).ok
    assert not near("ours is NaN", [nan, 1.0], [1.0, 1.0], 1).ok
    assert not near("theirs is NaN", [1.0, 1.0], [nan, 1.0], 1).ok
    assert not near("other infinity", [np.inf], [-np.inf], 1).ok
    assert near("both NaN", [nan, 1.0], [nan, 1.0], 0).ok
    assert near("relative", [1000.1], [1000.0], 2e-4, relative=True).ok
    assert not near("relative below one is absolute", [0.011], [0.01], 2e-4, relative=True).ok


def test_pairs_that_were_recorded_one_way_have_no_pair_solver(aligned, tmp_path, capsys):
    folder = copy_of(aligned, tmp_path)
    with np.load(folder / "ga" / "pairs.npz") as file:
        arrays = {k: v[: len(v) // 2] for k, v in file.items()}
    with np.load(folder / "ga" / "scene.npz") as file:
        scene = dict(file)
    save(folder / "ga" / "pairs.npz", arrays)
    save(folder / "ga" / "scene.npz", scene | {"edges": scene["edges"][: len(scene["edges"]) // 2]})
    assert main(["monst3r", str(folder), "--only", "pair-solver"]) == 1
    assert "both ways" in capsys.readouterr().out
