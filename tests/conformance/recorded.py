"""Runs of the original's alignment as they were recorded: what it was given, how it was set, what it answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backend.align.losses import AlignmentState, LossSettings
from backend.align.original import OriginalSettings
from backend.align.original_motion import MOTION_THRESHOLD, motion_error
from backend.align.predictions import PairFlows, PairPredictions

from .rows import Arrays


@dataclass(frozen=True)
class Recorded:
    """One run of the original: what it was given (`scene.npz`, `pairs.npz`, `flow.npz`) and what it answered.

    `settings` and `true_masks` are None where nothing says how it was run, or it was run in a way that is not ours.
    """

    name: str
    predictions: PairPredictions
    flows: PairFlows | None
    scene: Arrays
    answer: Arrays
    settings: OriginalSettings | None
    true_masks: bool | None

    def dynamic(self) -> Tensor | None:
        """(T, H, W) the masks that the run used: recorded ones if they are there, else by our motion error."""
        if self.true_masks:
            return torch.from_numpy(self.scene["dynamic_mask"])
        if "dynamic_mask" in self.answer:
            return torch.from_numpy(self.answer["dynamic_mask"])
        if self.flows is None:
            return None
        return motion_error(self.predictions, self.flows) > MOTION_THRESHOLD


#: What the recorded variants change in the demo's settings, where metrics.json does not say.
VARIANTS: dict[str, tuple[LossSettings, bool]] = {
    "default": (LossSettings(), False),
    "noflow": (LossSettings(flow_weight=0), False),
    "gtmask": (LossSettings(), True),
    "nonbatch": (LossSettings(flow_per_pair=True), False),
    "nosmooth": (LossSettings(smooth_weight=0), False),
}


def recorded_runs(folder: Path) -> list[Recorded]:
    """Every `ga/upstream_NAME.npz`; empty where a run's predictions are missing."""
    place = folder / "ga"
    paths = sorted(place.glob("upstream_*.npz"))
    if not paths or not (place / "scene.npz").is_file() or not (place / "pairs.npz").is_file():
        return []
    scene, pairs = Arrays(place / "scene.npz"), Arrays(place / "pairs.npz")
    edges = torch.from_numpy(scene["edges"]).long()
    names = ("pred_i", "pred_j", "conf_i", "conf_j")
    predictions = PairPredictions(edges, *(torch.from_numpy(pairs[name]) for name in names))
    flows = None
    if (place / "flow.npz").is_file():
        flow = torch.from_numpy(Arrays(place / "flow.npz")["flow"])
        flows = PairFlows(edges, flow, torch.isfinite(flow).all(1))
    metrics = place / "metrics.json"
    described = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    runs = []
    for path in paths:
        name = path.stem.removeprefix("upstream_")
        settings, true_masks = _settings(name, described.get(name, {}))
        runs.append(Recorded(name, predictions, flows, scene, Arrays(path), settings, true_masks))
    return runs


def _settings(name: str, described: dict) -> tuple[OriginalSettings | None, bool | None]:
    if "settings" not in described:
        loss, true_masks = VARIANTS.get(name, (None, None))
        return (None if loss is None else OriginalSettings(loss=loss)), true_masks
    s = described["settings"]
    if s.get("window_wise") or s.get("schedule", "linear") != "linear":
        return None, None  # another method
    # What is not told is what the original's class has by itself, not its demo (facts sheet, section 8.3).
    loss = LossSettings(
        smooth_weight=s.get("temporal_smoothing_weight", 0.0),
        translation_weight=s.get("translation_weight", 0.1),
        flow_weight=s.get("flow_loss_weight", 0.0),
        flow_threshold_px=s.get("flow_loss_thre", 50),
        flow_per_pair=not s.get("batchify", True),
    )
    settings = OriginalSettings(
        iterations=described.get("niter", s.get("num_total_iter", 300)),
        flow_start=s.get("flow_loss_start_epoch", 0.15),
        shared_focal=s.get("shared_focal", False),
        motion_threshold=s.get("motion_mask_thre", MOTION_THRESHOLD),
        loss=loss,
    )
    return settings, not s.get("use_self_mask", True)


def recorded_state(arrays: Arrays, when: str) -> AlignmentState | None:
    """The state `init` or `final`; None where some of it is not stored."""
    if not arrays.has(*(f"{when}_{name}" for name in ("poses", "focals", "depth", "pw_poses"))):
        return None
    placed = torch.from_numpy(arrays[f"{when}_pw_poses"])
    scale = torch.linalg.det(placed[:, :3, :3]) ** (1 / 3)
    return AlignmentState(
        depth=torch.from_numpy(arrays[f"{when}_depth"]),
        world_from_camera=torch.from_numpy(arrays[f"{when}_poses"]),
        focal_px=torch.from_numpy(arrays[f"{when}_focals"]),
        pair_scale=scale,
        pair_rotation=placed[:, :3, :3] / scale[:, None, None],
        pair_translation=placed[:, :3, 3] / scale[:, None],
    )
