"""What a stream remembers: fusion as published and ours, and places that frames see through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from backend.geometry.camera import unproject
from backend.streaming.fusion import (
    ORIGINAL,
    OURS,
    Candidates,
    FusionOptions,
    Memory,
    forget,
    fuse,
    readable,
    threshold,
)
from backend.streaming.sight import Sight, sight_of_points
from tests.stream_oracle import EXACT, StreamErrors, StreamOracle
from tests.worlds import World, film, room

#: One far point: sky, or what the network is wrong about.
FAR = torch.tensor([[500.0, 0.0, 0.0]])


def said(positions, confidence=None) -> Candidates:
    """Candidates whose one feature is their number."""
    positions = torch.as_tensor(positions, dtype=torch.float32)
    number = torch.arange(len(positions), dtype=torch.float32)[:, None]
    sure = torch.full((len(positions),), 2.0) if confidence is None else torch.as_tensor(confidence)
    return Candidates(positions, number, sure.float())


def test_as_published_near_candidates_replace_a_pointer_by_their_mean_and_others_follow_in_their_order():
    memory = Memory.of(said([[0.0, 0, 0], [4.0, 0, 0], [0, 0, 20.0]]), ORIGINAL)
    after = fuse(memory, said([[2.0, 0, 0], [0.1, 0, 0], [0, 1.5, 0], [0.3, 0, 0]]), ORIGINAL)
    expected = [[0.2, 0, 0], [4, 0, 0], [0, 0, 20], [2, 0, 0], [0, 1.5, 0]]
    torch.testing.assert_close(after.positions, torch.tensor(expected))
    torch.testing.assert_close(after.features[:, 0], torch.tensor([2.0, 1.0, 2.0, 0.0, 2.0]))


def test_the_threshold_as_published_is_a_twentieth_of_the_diagonal_of_all_places():
    memory, candidates = Memory.of(said([[0.0, 0, 0], [3.0, 4, 0]]), ORIGINAL), said([[0.0, 0, 12.0]])
    assert threshold(memory, candidates, ORIGINAL) == pytest.approx(13 / 20)


def test_far_points_do_not_inflate_our_threshold():
    places = 5 * torch.rand(2, 400, 3, generator=torch.Generator().manual_seed(0))
    memory, candidates = Memory.of(said(places[0]), ORIGINAL), said(places[1])
    with_far = said(torch.cat([places[1], FAR, -FAR]))
    before, after = (float(threshold(memory, c, OURS)) for c in (candidates, with_far))
    assert after == pytest.approx(before, rel=0.02)
    assert before == pytest.approx(float(threshold(memory, candidates, ORIGINAL)), rel=0.05)
    assert len(fuse(memory, with_far, ORIGINAL)) == len(memory) + 2, "as published, all merge that is not far"
    robust = FusionOptions(tail=0.05)
    assert len(fuse(memory, with_far, robust)) == pytest.approx(len(fuse(memory, candidates, robust)) + 2, abs=8)


def test_the_doubtful_share_of_a_frame_is_not_remembered_and_the_others_keep_their_order():
    sure = [5.0, 1.0, 4.0, 1.1]
    candidates = said([[0.0, 0, 0], [9, 9, 9], [1, 0, 0], [8, 8, 8]], sure)
    memory = Memory.of(candidates, FusionOptions(doubtful=0.5))
    assert memory.features[:, 0].tolist() == [0.0, 2.0]
    after = fuse(memory, said([[0.0, 5, 0], [0, 0, 5], [5, 0, 0]], [1.0, 3.0, 2.0]), FusionOptions(doubtful=1 / 3))
    assert after.features[:, 0].tolist() == [0.0, 2.0, 1.0, 2.0]


def test_renewed_by_confidence_a_pointer_keeps_more_of_what_was_surer():
    options = FusionOptions(weighted=True)
    memory = Memory.of(said([[0.0, 0, 0], [0, 0, 20]], [9.0, 1.0]), options)
    after = fuse(memory, said([[0.4, 0, 0], [0, 0, 20.4]], [1.0, 3.0]), options)
    torch.testing.assert_close(after.positions, torch.tensor([[0.04, 0, 0], [0, 0, 20.3]]))
    two = fuse(memory, said([[0.2, 0, 0], [0.6, 0, 0]], [3.0, 1.0]), options)
    torch.testing.assert_close(two.positions[0, 0], torch.tensor((9 * 0 + 2 * 0.3) / 11))
    assert two.confidence[0] == pytest.approx((9 * 9 + 2 * 2.5) / 11)


def test_fusing_is_the_same_on_every_run():
    generator = torch.Generator().manual_seed(0)
    positions, more = torch.rand(2, 400, 3, generator=generator)
    once, again = (fuse(Memory.of(said(positions), OURS), said(more), OURS) for _ in range(2))
    assert torch.equal(once.positions, again.positions)
    assert torch.equal(once.features, again.features)


def test_the_decoder_may_be_shown_some_pointers_the_near_ones_and_some_of_every_age():
    memory = Memory.of(said([[float(n), 0, 0] for n in range(100)]), ORIGINAL)
    options = FusionOptions(most_read=20)
    seen = readable(memory, torch.tensor([[80.0, 1, 0]]), options).features[:, 0].tolist()
    assert len(seen) == 20
    assert seen == sorted(seen)
    assert set(range(73, 88)) < set(seen)
    assert (seen[0], seen[-1]) == (0, 99)
    assert readable(memory, torch.zeros(1, 3), FusionOptions()) is memory


@pytest.mark.parametrize("wrong", [{"tail": 0.5}, {"doubtful": 1.0}, {"near": 0.0}, {"life": 1}])
def test_what_is_no_way_to_fuse_is_refused(wrong):
    with pytest.raises(ValueError, match=r"fuse|life"):
        FusionOptions(**wrong)


def true_sight(world: World, t: int) -> Sight:
    camera = torch.from_numpy(np.linalg.inv(world.world_from_camera[t]))
    return Sight.of(torch.from_numpy(world.depth[t]), camera, torch.from_numpy(world.intrinsics[t]))


def test_a_sight_tells_what_is_there_what_is_hidden_and_what_it_sees_through():
    intrinsics = np.array([[60.0, 60, 32, 24]])
    world = film(np.eye(4)[None], intrinsics, 64, 48, pillars=((0.0, 3.0),))
    places = torch.tensor(
        [[0, 0, 3.0], [0, 0, 1.5], [0, 0, 4.5], [-1.5, 0, 3.0], [-1.5, 0, 5.0], [0, 0, -2], [9, 0, 3]]
    )
    look = true_sight(world, 0).look(places)
    assert look.through(0.1).tolist() == [False, True, False, True, False, False, False]
    assert look.visible(0.1).tolist() == [True, True, False, True, True, False, False]
    assert look.clearance()[1] == pytest.approx(np.log(2), abs=1e-3)


def points(world: World, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, W, 3) points of a frame in its camera, and in the world."""
    camera, in_world = (
        unproject(world.depth[t], world.intrinsics[t], pose) for pose in (np.eye(4), world.world_from_camera[t])
    )
    return torch.from_numpy(camera).float(), torch.from_numpy(in_world).float()


def test_a_sight_comes_of_points_alone_whatever_the_scale_between_camera_and_world():
    world = room(3)
    camera, in_world = points(world, 2)
    sight = sight_of_points(camera, 1.7 * in_world, torch.full(camera.shape[:2], 3.0), 1.0)
    assert sight.lens.tolist() == pytest.approx(world.intrinsics[2].tolist(), rel=1e-3)
    look = sight.look(1.7 * in_world)
    torch.testing.assert_close(look.z, camera[..., 2], rtol=1e-3, atol=1e-3)
    assert not look.through(0.01).any()


def test_a_frame_whose_points_do_not_agree_sees_nothing():
    generator = torch.Generator().manual_seed(1)
    camera, in_world = torch.rand(2, 64, 80, 3, generator=generator)
    sight = sight_of_points(camera, in_world, torch.ones(64, 80), 1.0)
    assert not sight.look(in_world).visible(0.1).any()


def remembered(world: World, options: FusionOptions, errors: StreamErrors = EXACT, size: int = 4) -> Memory:
    """What a stream remembers of a world whose network errs so, by patches of `size` pixels; without its drift."""
    memory, oracle = None, StreamOracle(world, errors)
    for picture in world.rgb:
        frame = oracle.push(picture)
        camera, in_world, sure = map(
            torch.from_numpy, (frame.points_camera, frame.points_world, frame.confidence_world)
        )
        patches, doubts = (avg_pool2d(m[None], size)[0].flatten(1).T for m in (in_world.movedim(2, 0), sure[None]))
        candidates = Candidates(patches, patches, doubts[:, 0])
        memory = fuse(memory, candidates, options) if memory else Memory.of(candidates, options)
        memory = forget(memory, sight_of_points(camera, in_world, sure, doubts.quantile(options.doubtful)), options)
    true = oracle.drift(len(world.rgb) - 1).inverse().apply(memory.positions.double().numpy())
    return replace(memory, positions=torch.from_numpy(true).float())


def left_behind(memory: Memory, world: World, latest: int = 3) -> int:
    """How many pointers are in the mover's plane where it was, and no more was in the `latest` frames, which see it."""
    (w, h), centres = world.mover.half_size, torch.from_numpy(world.mover.centres).float()
    off = (memory.positions[:, None] - centres).abs()
    was = off.le(torch.tensor([w, h, 0.25])).all(2)
    lately = off[:, -latest:].le(torch.tensor([w + 0.2, h + 0.2, 0.5])).all(2)
    seen = torch.stack([true_sight(world, -n).look(memory.positions).nearest > 0 for n in range(1, latest + 1)])
    return int((was.any(1) & ~lately.any(1) & seen.all(0)).sum())


def of_the_room(memory: Memory) -> int:
    """How many pointers are within 20 cm of its walls."""
    x, y, z = memory.positions.T
    return int(((x.abs() > 2.8) | (y > 1.0) | (y < -1.6) | (z > 4.8)).sum())


@pytest.mark.parametrize("errors", [EXACT, StreamErrors()], ids=["no errors", "a network's errors"])
def test_movers_leave_no_trail_of_pointers(errors):
    world = room(24)
    original = remembered(world, ORIGINAL, errors)
    assert left_behind(original, world) > 8, "as published they stay for ever"
    ours = remembered(world, replace(ORIGINAL, life=3), errors)
    assert left_behind(ours, world) == 0
    assert left_behind(remembered(world, OURS, errors), world) == 0
    assert of_the_room(ours) > 0.95 * of_the_room(original), "and the room is remembered as before"


def test_a_world_that_stands_still_is_not_forgotten():
    world = room(10, with_box=False)
    assert len(remembered(world, FusionOptions(life=2))) >= 0.97 * len(remembered(world, ORIGINAL))
