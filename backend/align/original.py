"""The original's alignment as a whole: its start, then Adam on its loss. The baseline that ours is measured against."""

from __future__ import annotations

from dataclasses import dataclass, field

import roma
import torch
from torch import Tensor

from ..run import Run
from .cleaning import without_floaters
from .losses import AlignmentState, LossSettings, alignment_loss, camera_points, transform_points
from .original_motion import MOTION_THRESHOLD, motion_error
from .original_start import BASE_SCALE, Start, spanning_tree_start
from .original_views import frame_confidence
from .predictions import PairFlows, PairPredictions

_FOCAL_STEP = 20.0  # focal = exp(parameter / 20)


@dataclass(frozen=True)
class OriginalSettings:
    """The settings of the original's demo (facts sheet, section 8.3)."""

    iterations: int = 300
    learning_rate: float = 0.01
    last_learning_rate: float = 0.001
    flow_start: float = 0.1  # share of the iterations before the flow term counts
    shared_focal: bool = True
    motion_threshold: float = MOTION_THRESHOLD
    loss: LossSettings = field(default_factory=LossSettings)


@dataclass(frozen=True)
class OriginalResult:
    """Start and end of an alignment.

    `dynamic` (T, H, W) bool; `confidence` (T, H, W) and `cleaned_confidence`, 0 where a point hangs in front of what
    another frame saw with more confidence; `loss_curve` (steps, 3): total, flow term and learning rate before
    each step; `final_loss` (2,): total and flow term.
    """

    start: Start
    state: AlignmentState
    dynamic: Tensor
    confidence: Tensor
    cleaned_confidence: Tensor
    loss_curve: Tensor
    final_loss: Tensor


def align_as_original(
    predictions: PairPredictions,
    flows: PairFlows | None = None,
    settings: OriginalSettings = OriginalSettings(),
    *,
    dynamic: Tensor | None = None,
    run: Run | None = None,
    stop_after: int | None = None,
) -> OriginalResult:
    """Align `predictions` the way the original does (facts sheet, sections 7 and 8), in float32 at least.

    `dynamic` (T, H, W) bool stands for the original's own motion masks, which only the flow term needs. With
    `stop_after` the result is what there is after so many steps of the schedule. Raises UserError for frames that no
    chain of pairs connects, Cancelled when `run` is; ValueError where flows or ways back are missing.
    """
    if predictions.points_i.dtype.itemsize < 4:
        predictions = predictions.to(torch.float32)
    start = spanning_tree_start(predictions, settings.shared_focal)
    frame_count = len(start.state.depth)
    if dynamic is None and flows is not None and settings.loss.flow_weight > 0:
        dynamic = motion_error(predictions, flows, frame_count) > settings.motion_threshold
    if dynamic is None:
        dynamic = torch.zeros_like(start.state.depth, dtype=torch.bool)
    parameters = Parameters(start.state, settings.shared_focal)
    optimiser = torch.optim.Adam(parameters.tensors(), lr=settings.learning_rate, betas=(0.9, 0.9))
    steps = settings.iterations if stop_after is None else min(stop_after, settings.iterations)
    curve = torch.zeros(steps, 3, dtype=torch.float64)
    initial_depth = start.state.depth

    def loss(with_flow: bool):
        used = flows if with_flow and settings.loss.flow_weight > 0 else None
        return alignment_loss(parameters.state(), predictions, used, dynamic, initial_depth, settings.loss)

    for step in (run or Run()).steps(steps):
        t = step / settings.iterations
        rate = settings.learning_rate + t * (settings.last_learning_rate - settings.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        value = loss(with_flow=t >= settings.flow_start)
        curve[step] = torch.tensor([value.total.item(), value.flow.item(), rate])
        value.total.backward()
        optimiser.step()
    with torch.no_grad():
        final = loss(with_flow=True)
        state = parameters.state()
        confidence = frame_confidence(predictions, frame_count)
        cleaned = clean_confidence(state, confidence)
    final_loss = torch.tensor([final.total.item(), final.flow.item()], dtype=torch.float64)
    return OriginalResult(start, state, dynamic, confidence, cleaned, curve, final_loss)


class Parameters:
    """An `AlignmentState` in the coordinates that the original's Adam walks in; facts sheet, section 8.1."""

    def __init__(self, state: AlignmentState, shared_focal: bool) -> None:
        self.frame_count = len(state.depth)
        focal = state.focal_px.mean()[None] if shared_focal else state.focal_px
        self.log_depth = _leaf(state.depth.log())
        self.turn = _leaf(roma.rotmat_to_unitquat(state.world_from_camera[:, :3, :3]))
        self.position = _leaf(_signed_log1p(state.world_from_camera[:, :3, 3]))
        self.focal = _leaf(_FOCAL_STEP * focal.log())
        self.pair_turn = _leaf(roma.rotmat_to_unitquat(state.pair_rotation))
        self.pair_shift = _leaf(_signed_log1p(state.pair_translation))
        self.pair_log_scale = _leaf(state.pair_scale.log())

    def tensors(self) -> list[Tensor]:
        """All that is optimised."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def state(self) -> AlignmentState:
        """The state that the parameters stand for; the mean log scale of the pairs is always that of 0.5."""
        rotation = _rotation(self.turn)
        translation = _signed_expm1(self.position)
        last_row = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(self.frame_count, 1, 4)
        return AlignmentState(
            depth=self.log_depth.exp(),
            world_from_camera=torch.cat([torch.cat([rotation, translation[..., None]], dim=2), last_row], dim=1),
            focal_px=(self.focal / _FOCAL_STEP).exp().expand(self.frame_count),
            pair_scale=BASE_SCALE * (self.pair_log_scale - self.pair_log_scale.mean()).exp(),
            pair_rotation=_rotation(self.pair_turn),
            pair_translation=_signed_expm1(self.pair_shift),
        )


def clean_confidence(state: AlignmentState, confidence: Tensor) -> Tensor:
    """(T, H, W) confidence, 0 where a point hangs in front of another frame's depth and is less sure than it.

    Facts sheet, section 8.4.
    """
    world = transform_points(state.world_from_camera, camera_points(state.depth, state.focal_px))
    middle = state.focal_px.new_tensor([confidence.shape[2] / 2, confidence.shape[1] / 2]).expand(len(world), 2)
    return without_floaters(world, state.depth, state.world_from_camera, state.focal_px, middle, confidence)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()


def _rotation(quaternions: Tensor) -> Tensor:
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternions, dim=-1))


def _signed_log1p(value: Tensor) -> Tensor:
    return value.sign() * value.abs().log1p()


def _signed_expm1(value: Tensor) -> Tensor:
    """Its gradient at exactly 0 is 0: what starts at the origin stays there, as in the original."""
    return value.sign() * value.abs().expm1()
