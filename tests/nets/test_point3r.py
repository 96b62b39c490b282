"""The streaming network: its turns and outputs by their formulas, what it passes over, how exact it is, what it needs.

That every layer is the original's is shown by `tests.conformance point3r`; streams are in `tests/streaming`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.nets.dpt import DPTHead
from backend.nets.formats import count_parameters
from backend.nets.manifest import model_named
from backend.nets.point3r import Point3RConfig, Point3RNet
from backend.nets.point3r_heads import camera_poses, in_front
from backend.nets.point3r_stream import Point3RStream
from backend.nets.precision import EXACT, FAST, FASTEST
from backend.nets.rope3d import BASES, rotary_3d
from backend.wire import UserError
from tests.point3r_recipe import TINY_STREAM, point3r_net, shapes_of


def clip(frames: int = 3, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


# Turns by places in space


def turned(x: Tensor, positions: Tensor) -> Tensor:
    """(B, heads, T, d) turned as the facts sheet has it: four bases one after the other, axis by axis."""
    third = x.shape[-1] // 3
    answers = []
    for base in BASES:
        parts = x.split((third, third, x.shape[-1] - 2 * third), -1)
        for part, position in zip(parts, positions.T):
            width, half = part.shape[-1], math.ceil(part.shape[-1] / 2)
            angles = position[:, None] * base ** -(2 * torch.arange(half, dtype=torch.float64) / width)
            angles = torch.cat((angles, angles), -1)[:, :width]
            around = torch.cat((-part[..., half:], part[..., :half]), -1)
            answers.append(part * angles.cos() + around * angles.sin())
    return torch.stack([torch.cat(answers[3 * n : 3 * n + 3], -1) for n in range(len(BASES))]).mean(0)


@pytest.mark.parametrize("width", [6, 16, 48, 64])
def test_one_turn_by_mean_cosines_is_the_mean_of_the_turns(width):
    torch.manual_seed(0)
    x, positions = torch.randn(2, 3, 5, width, dtype=torch.float64), torch.randn(4, 3) * 5
    answer = rotary_3d(positions, width, unmoved=1)(x.float())
    assert torch.equal(answer[:, :, 0], x[:, :, 0].float())
    torch.testing.assert_close(answer[:, :, 1:], turned(x[:, :, 1:], positions).float(), atol=1e-5, rtol=1e-5)


def test_a_turn_keeps_the_number_type_and_leaves_the_origin_alone():
    x = torch.randn(1, 2, 3, 16, dtype=torch.bfloat16)
    assert torch.equal(rotary_3d(torch.zeros(3, 3), 16)(x), x)


def test_heads_that_are_too_narrow_for_three_axes_are_refused():
    with pytest.raises(ValueError, match="at least 6 channels"):
        rotary_3d(torch.zeros(1, 3), 5)


# What heads make


def test_a_pose_is_a_shift_by_its_exponential_and_a_quaternion_whose_first_number_is_not_negative():
    raw = torch.tensor([[0.0, 3.0, 4.0, -2.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0]])
    pose = camera_poses(raw.mul(torch.tensor([0.2] * 3 + [1.0] * 4)))
    shift = math.expm1(1.0)
    torch.testing.assert_close(pose[0], torch.tensor([0, 0.6 * shift, 0.8 * shift, 0.5**0.5, 0, 0, -(0.5**0.5)]))
    torch.testing.assert_close(pose[1], torch.tensor([0.0, 0, 0, 0, 0, 1, 0]))


def test_what_is_behind_the_camera_is_mirrored_at_it_and_keeps_its_confidence():
    raw = torch.tensor([[1.0, 2.0, -3.0, -4.0], [1.0, 2.0, 3.0, -4.0]]).T[None, :, None]
    assert in_front(raw)[0, :, 0].T.tolist() == [[-1.0, -2.0, 3.0, -4.0], [1.0, 2.0, 3.0, -4.0]]


def test_patches_are_told_by_their_means_row_by_row():
    dense = torch.arange(32 * 48, dtype=torch.float32).view(1, 32, 48, 1)
    means = point3r_net().patch_means(dense)[:, 0]
    first = np.arange(32 * 48).reshape(32, 48)[:16, :16].mean()
    assert means.tolist() == [first + 16 * 48 * row + 16 * column for row in range(2) for column in range(3)]


# What the network passes over


def said(net: Point3RNet, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last frame's points in the world, and the memory's features."""
    stream = Point3RStream(net)
    frames = [stream.push(picture) for picture in pictures]
    return frames[-1].points_world, stream.state.memory.features.numpy()


@torch.no_grad()
def test_the_memory_s_last_level_changes_nothing_and_the_one_before_does():
    net, pictures = point3r_net(), clip()
    before = said(net, pictures)
    for module in (net.dec_blocks_memory[-1], net.dec_norm_memory):
        for parameter in module.parameters():
            parameter.fill_(math.nan)
    assert all(map(np.array_equal, said(net, pictures), before))
    net.dec_blocks_memory[-2].mlp.fc2.weight.mul_(2)
    assert not np.array_equal(said(net, pictures)[0], before[0])


def test_portrait_frames_are_streamed_as_they_are():
    stream = Point3RStream(point3r_net())
    for picture in clip(2, 64, 32):
        frame = stream.push(picture)
    assert frame.points_camera.shape == (64, 32, 3)
    assert frame.confidence_world.shape == (64, 32)
    assert frame.confidence_world.min() >= 1


# How exact it is


def test_the_fast_path_answers_nearly_the_same():
    exact, fast = Point3RStream(point3r_net()), Point3RStream(point3r_net(), precision=FAST)
    for picture in clip():
        one, other = exact.push(picture), fast.push(picture)
    net = fast.network
    assert net.enc_blocks[0].mlp.fc1.weight.dtype == net.pose_retriever.proj_q.weight.dtype == torch.bfloat16
    assert net.downstream_head.dpt_cross.head[0].weight.dtype == torch.float32
    for kept in (net.enc_norm, net.pts_patch_embed.proj, net.downstream_head.pose_head.mlp.fc1):
        assert kept.weight.dtype == torch.float32
    size = np.abs(one.points_world).mean()
    away = np.abs(other.points_world - one.points_world)
    assert 0 < np.median(away) < 0.02 * size
    assert np.abs(other.world_from_camera - one.world_from_camera).max() < 0.02
    assert fast.state.memory.features.dtype == fast.state.slots.dtype == torch.float32


def test_heads_in_half_precision_leave_float32():
    stream = Point3RStream(point3r_net(), precision=FASTEST)
    frame = stream.push(clip()[0])
    assert stream.network.downstream_head.dpt_self.head[0].weight.dtype == torch.float16
    assert frame.points_world.dtype == frame.confidence_camera.dtype == np.float32


@torch.no_grad()
@pytest.mark.parametrize("part", ["pose_head.mlp.fc2", "dpt_cross.head.4"])
def test_an_answer_that_is_not_made_of_numbers_is_told_and_not_remembered(part):
    """As weights that are damaged give one, or heads in half precision whose numbers are too large for it."""
    stream, pictures = Point3RStream(point3r_net()), clip()
    stream.push(pictures[0])
    before = stream.save()
    bias = stream.network.downstream_head.get_submodule(part).bias
    kept = bias[0].clone()
    bias[0] = math.inf
    with pytest.raises(UserError, match="no numbers for frame 1; choose full precision"):
        stream.push(pictures[1])
    assert all(np.array_equal(array, before[name]) for name, array in stream.save().items())
    bias[0] = kept
    assert stream.push(pictures[1]).index == 1


# Sizes


def test_the_published_network_has_the_published_names_and_number_of_parameters():
    shapes = shapes_of(Point3RConfig())
    assert count_parameters(shapes) == model_named("point3r").parameters == 828_014_991
    assert len(shapes) + 2 * len(DPTHead.ALIASES) == 1231


def test_what_a_frame_needs_grows_with_its_pixels_and_with_pointers_when_there_are_many():
    with torch.device("meta"):
        net = Point3RNet(Point3RConfig())
    net.precision = EXACT
    few, many = net.frame_bytes(288, 512, 600), net.frame_bytes(288, 512, 12_000)
    assert few == net.frame_bytes(288, 512, 1500)  # the widest maps need more
    # Measured from the sizes of all tensors alive, with fused attention: 215 and 426 MB.
    assert 215e6 < few < 1.5 * 215e6
    assert 426e6 < many < 1.5 * 426e6
    assert net.frame_bytes(576, 1024, 600) == pytest.approx(4 * few, rel=0.01)
    net.precision = FASTEST
    assert 114e6 < net.frame_bytes(288, 512, 600) < 1.5 * 114e6


def test_a_linear_head_needs_less():
    with torch.device("meta"):
        nets = [Point3RNet(replace(TINY_STREAM, head=head)) for head in ("dpt", "linear")]
    assert nets[1].frame_bytes(32, 48, 12) < nets[0].frame_bytes(32, 48, 12)
