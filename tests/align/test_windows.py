"""Long clips in windows: every pair once, every frame decided once, and joined as if there had been one window."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from backend.align.align import Aligned, MoverOptions, align
from backend.align.graph import make_pairs
from backend.align.solve import Solved
from backend.align.unknowns import NOTHING_KNOWN, Knowns, motion
from backend.align.windows import Joiner, Solution, Window, windows_of
from backend.geometry.trajectory import absolute_trajectory_error
from backend.monst3r.knowns import known_part
from backend.wire import UserError
from tests.pair_oracle import EXACT, Errors

from .by_oracle import depth_error, path_error, predicted, still_room, with_garbage

FRAMES, LENGTH = 24, 14
PAIRS = make_pairs("swinstride-2-noncyclic", FRAMES)  # neighbours at 1 and 3
SIZE = (48, 32)


@pytest.fixture(scope="module")
def world():
    return still_room(FRAMES)


def aligned(pairs, knowns: Knowns = NOTHING_KNOWN, length: int = LENGTH) -> list[tuple[Window, Aligned]]:
    """All windows aligned, as the engine does it."""
    predictions, flows = pairs
    place = {tuple(e): row for row, e in enumerate(predictions.edges.tolist())}
    found = []
    for window in windows_of(PAIRS, FRAMES, length):
        rows = torch.tensor([place[tuple(e)] for e in window.edges.tolist()])
        part = align(
            replace(predictions.rows(rows), edges=window.edges - window.begin),
            replace(flows.rows(rows), edges=window.edges - window.begin),
            window.end - window.begin,
            knowns=known_part(knowns, slice(window.begin, window.end)),
            movers=MoverOptions(find=False),
        )
        found.append((window, part))
    return found


def joined(windows: list[tuple[Window, Aligned]], knowns: Knowns = NOTHING_KNOWN, folder=None) -> Joiner:
    joiner = Joiner(FRAMES, SIZE, knowns, folder)
    for window, part in windows:
        joiner.add(window, part)
    return joiner


@pytest.fixture(scope="module")
def noisy_pairs(world):
    return predicted(world, Errors(), PAIRS)


@pytest.fixture(scope="module")
def exact_pairs(world):
    return predicted(world, EXACT, PAIRS)


@pytest.fixture(scope="module")
def noisy(noisy_pairs):
    return aligned(noisy_pairs)


@pytest.fixture(scope="module")
def exact(exact_pairs):
    return aligned(exact_pairs)


@pytest.fixture(scope="module")
def by_windows(noisy) -> Solution:
    return joined(noisy).finish()


GRAPHS = [
    ("swinstride-2-noncyclic", 24, 14),
    ("swinstride-5-noncyclic", 300, 100),
    ("swin-3-noncyclic", 101, 20),
    ("logwin-3-noncyclic", 60, 25),
]


@pytest.mark.parametrize(("graph", "frames", "length"), GRAPHS)
def test_every_pair_is_new_in_one_window_and_kept_in_the_others(graph, frames, length):
    pairs = make_pairs(graph, frames)
    windows = windows_of(pairs, frames, length)
    assert len(windows) > 1
    new = [tuple(e) for window in windows for e in window.new_edges.tolist()]
    assert sorted(new) == sorted(pairs)
    assert len(set(new)) == len(new)
    before: Window | None = None
    for window in windows:
        assert ((window.edges >= window.begin) & (window.edges < window.end)).all()
        assert window.end - window.begin == length
        assert len(window.edges) == sum(window.begin <= min(p) and max(p) < window.end for p in pairs)
        if before is not None:
            assert torch.equal(window.edges[: window.kept], before.edges[window.kept_rows])
        before = window


@pytest.mark.parametrize(("graph", "frames", "length"), GRAPHS)
def test_every_frame_is_decided_once_where_all_of_its_pairs_are(graph, frames, length):
    pairs = make_pairs(graph, frames)
    windows = windows_of(pairs, frames, length)
    assert [n for w in windows for n in range(w.own_begin, w.own_end)] == list(range(frames))
    for window in windows:
        inside = {tuple(e) for e in window.edges.tolist()}
        own = range(window.own_begin, window.own_end)
        assert all(pair in inside for pair in pairs if pair[0] in own or pair[1] in own)


@pytest.mark.parametrize(("graph", "frames", "length"), [("swin-2-noncyclic", 20, 20), ("complete", 30, 20)])
def test_short_clips_and_pairs_that_reach_far_are_one_window(graph, frames, length):
    pairs = make_pairs(graph, frames)
    (window,) = windows_of(pairs, frames, length)
    assert (window.begin, window.end, window.own_begin, window.own_end) == (0, frames, 0, frames)
    assert [tuple(e) for e in window.new_edges.tolist()] == pairs


def test_exact_predictions_in_windows_give_the_exact_world(exact, world):
    found = joined(exact).finish()
    error = path_error(found.camera_from_world, world)
    assert error.ate_rmse < 1e-3 * error.path_length
    assert error.rotation_deg_rmse < 0.02
    assert depth_error(found.depth, world) < 2e-3  # at one scale for all windows
    np.testing.assert_allclose(found.focal_px, world.intrinsics[:, 0], rtol=2e-3)


@pytest.mark.slow
def test_windows_give_what_one_window_gives(noisy_pairs, world, by_windows):
    whole = joined(aligned(noisy_pairs, length=FRAMES)).finish()
    one, many = (path_error(s.camera_from_world, world).ate_rmse for s in (whole, by_windows))
    assert many < 1.1 * one
    between = absolute_trajectory_error(*(np.linalg.inv(s.camera_from_world) for s in (by_windows, whole)))
    assert between.ate_rmse < 0.3 * one  # nearer to each other than to the truth
    assert depth_error(by_windows.depth, world) < 1.1 * depth_error(whole.depth, world)


def test_one_lens_is_one_lens_in_all_windows(by_windows, world):
    assert np.ptp(by_windows.focal_px) == 0
    np.testing.assert_allclose(by_windows.focal_px, world.intrinsics[:, 0], rtol=0.02)


def test_drift_of_a_chain_is_taken_out_by_solving_all_windows_at_once(noisy, world, by_windows, monkeypatch):
    """The second window's path bends away little by little."""
    _, part = noisy[1]
    bend = torch.zeros(LENGTH, 6, dtype=torch.float64)
    bend[:, 0] = 0.3 * torch.linspace(0, 1, LENGTH) ** 2
    bend[:, 4] = 0.15 * torch.linspace(0, 1, LENGTH) ** 2
    bent = replace(part.state, camera_from_world=motion(bend) @ part.state.camera_from_world)
    windows = [noisy[0], (noisy[1][0], replace(part, state=bent)), noisy[2]]
    solved = path_error(joined(windows).finish().camera_from_world, world).ate_rmse

    def as_it_is(sampled, state, knowns, progress) -> Solved:
        return Solved(state, part.noise, 0.0, 0)

    monkeypatch.setattr("backend.align.windows.solve", as_it_is)
    chained = path_error(joined(windows).finish().camera_from_world, world).ate_rmse
    assert chained > 2 * solved
    assert solved < 1.1 * path_error(by_windows.camera_from_world, world).ate_rmse


def test_of_a_window_only_its_sample_stays(noisy, noisy_pairs):
    joiner = joined(noisy)
    predictions, flows = noisy_pairs

    def size(*holders) -> int:
        tensors = (getattr(h, f.name) for h in holders for f in fields(h))
        return sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))

    assert len(joiner.parts) == 3
    for window, sampled, state, _ in joiner.parts:
        share = len(window.edges) / len(predictions.edges)
        assert size(sampled, state) < 0.25 * share * size(predictions, flows)  # of a picture of 48 x 32


def test_large_arrays_lie_in_files_when_there_is_a_folder(exact, tmp_path, world):
    found = joined(exact, folder=tmp_path).finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confidence.npy", "depth.npy", "scores.npy"]
    found.depth.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "depth.npy"), found.depth)
    assert depth_error(found.depth, world) < 2e-3


@pytest.mark.slow
def test_a_known_lens_and_known_poses_are_kept_through_all_windows(noisy_pairs, world):
    """Poses of the last frames alone: the first window knows none, and still ends up in the user's world."""
    poses = torch.linalg.inv(torch.from_numpy(world.world_from_camera))
    poses[:16] = torch.nan
    knowns = Knowns(focal_px=torch.from_numpy(world.intrinsics[:, 0].copy()), camera_from_world=poses)
    found = joined(aligned(noisy_pairs, knowns), knowns).finish()
    np.testing.assert_array_equal(found.camera_from_world[16:], poses[16:].numpy())
    np.testing.assert_allclose(found.focal_px, world.intrinsics[:, 0], rtol=1e-12)
    centres = np.linalg.inv(found.camera_from_world)[:, :3, 3]
    off = np.linalg.norm(centres - world.world_from_camera[:, :3, 3], axis=1)
    assert off.max() < 0.05  # metres of the user's world, with no alignment
    assert np.abs(np.median(found.depth / world.depth) - 1) < 0.03


@pytest.mark.slow
def test_a_frame_that_is_not_placed_where_windows_meet_is_nan_and_the_rest_is_right(exact_pairs, world):
    bad = LENGTH - 4  # in both windows
    found = joined(aligned(with_garbage(*exact_pairs, bad))).finish()
    placed = np.isfinite(found.camera_from_world).all((1, 2))
    assert np.flatnonzero(~placed).tolist() == [bad]
    assert (found.depth[bad] == 0).all()
    assert np.isfinite(found.depth).all()
    assert path_error(found.camera_from_world, world).ate_rmse < 2e-3
    np.testing.assert_allclose(found.focal_px, world.intrinsics[:, 0], rtol=2e-3)  # of that frame too


@pytest.mark.slow
def test_a_window_that_nothing_connects_is_left_out(exact_pairs, world):
    """Six frames that say nothing: what comes after them cannot be placed beside what comes before."""
    predictions, flows = exact_pairs
    for bad in range(8, 14):
        predictions, flows = with_garbage(predictions, flows, bad)
    found = joined(aligned((predictions, flows))).finish()
    placed = np.isfinite(found.camera_from_world).all((1, 2))
    assert np.flatnonzero(placed).tolist() == list(range(8))
    assert (found.depth[8:] == 0).all()
    assert (found.confidence[8:] == 0).all()
    assert path_error(found.camera_from_world, world).ate_rmse < 2e-3


def test_too_little_in_all_is_refused(exact):
    """Each window has enough frames for itself, but the clip has not."""
    first, nothing = exact[0][1], torch.full((LENGTH, 4, 4), torch.nan, dtype=torch.float64)
    some = nothing.clone()
    some[:5] = first.camera_from_world[:5]
    parts = [
        (window, replace(part, state=replace(part.state, camera_from_world=poses)))
        for (window, part), poses in zip(exact, (some, nothing, nothing))
    ]
    with pytest.raises(UserError, match="only 5 of 24 frames"):
        joined(parts).finish()


def test_progress_may_stop_the_last_solve(noisy):
    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        joined(noisy).finish(stop)
