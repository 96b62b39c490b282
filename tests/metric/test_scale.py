"""A capture's scale from pairs of its frames: found within the stated spread, or refused with the reason."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.metric.compare import PairScale, compare, known_frame
from backend.metric.frames import choose_pairs
from backend.metric.record import record_scale
from backend.metric.scale import agreed, measure_scale
from backend.run import Run
from backend.sparse.views import SymmetricPair, View
from backend.wire import CONFIDENCE_FILLED, Capture, MetricScale, UserError, read_capture, write_capture
from tests.oracle import film_room, oracle_capture, travelling
from tests.pair_oracle import EXACT, Errors, PairOracle
from tests.worlds import World, as_capture, hand_held, hand_held_room, large_mover, locked_off, room

#: What the network's passes are off by, as the fixtures of MASt3R have it: 4 % in scale, 2 % in focal length.
AS_RECORDED = Errors(scale=0.04)
STAMP = {"name": "mast3r", "sha256": "0" * 64}


def in_units(world: World, metres: float) -> Capture:
    """The world as a capture whose unit is so many metres long."""
    exact = as_capture(world)
    cameras = world.world_from_camera.copy()
    cameras[:, :3, 3] /= metres
    depth = (world.depth / metres).astype(np.float32)
    return replace(exact, metric=False, world_from_camera=cameras, depth=depth, tracks=None)


class PointOracle(PairOracle):
    """The pair oracle as a `ViewSource` without descriptors, which nothing here reads."""

    def predict(self, pairs):
        none = torch.zeros(0)
        for i, j in pairs:
            views = []
            for a, b in ((i, j), (j, i)):
                points_a, points_b, sure_a, sure_b = map(torch.from_numpy, self._pair(a, b))
                views += [View(points_a, sure_a, none, none), View(points_b, sure_b, none, none)]
            yield SymmetricPair(i, j, *views)


def oracle_for(world: World, errors: Errors = AS_RECORDED, seed: int = 0):
    """Opens an oracle that finds by themselves which of the world's frames it is given."""

    def open_source(pictures: np.ndarray):
        frames = [int((world.rgb == picture).all((1, 2, 3)).argmax()) for picture in pictures]
        arrays = (a[frames] for a in (world.rgb, world.depth, world.dynamic, world.world_from_camera, world.intrinsics))
        return PointOracle(World(*arrays), errors, seed=seed), (STAMP,)

    return open_source


def measured(world: World, capture: Capture, errors: Errors = AS_RECORDED, seed: int = 0, **options) -> MetricScale:
    return measure_scale(capture, oracle_for(world, errors, seed), Run(), long_side=world.size[0], **options)


@pytest.fixture(scope="module")
def world() -> World:
    return hand_held_room(20)


@pytest.mark.parametrize("metres", [0.1, 1.0, 37.0])
def test_the_scale_is_found_within_its_spread(world, metres):
    capture = in_units(world, metres)
    exact = measured(world, capture, EXACT)
    assert exact.metres_per_unit == pytest.approx(metres, rel=1e-6)
    assert exact.spread < 1e-6
    found = measured(world, capture)
    assert abs(math.log(found.metres_per_unit / metres)) < found.spread
    assert found.low < metres < found.high
    assert 0.01 < found.spread < 0.08  # the passes' 4 %, two of them a pair
    assert found.pairs >= 8
    assert found.weights == (STAMP,)


@pytest.mark.parametrize("seed", range(3))
def test_the_stated_interval_holds_for_passes_that_are_far_apart(world, seed):
    found = measured(world, in_units(world, 0.37), Errors(scale=0.12), seed)
    assert found.low < 0.37 < found.high
    assert found.spread > 0.03


def test_movers_say_nothing():
    """The panel covers 44 % of the picture, and the capture has it at a tenth of its distance."""
    world = large_mover()
    capture = in_units(world, 2.0)
    wrong = np.where(capture.dynamic, capture.depth / 10, capture.depth)
    found = measured(world, replace(capture, depth=wrong), EXACT)
    assert found.metres_per_unit == pytest.approx(2.0, rel=1e-6)
    shown = replace(capture, depth=wrong, dynamic=np.zeros_like(capture.dynamic))
    pair, known = one_pair(world, shown)
    masked, known_masked = one_pair(world, replace(capture, depth=wrong))
    assert abs(compare(pair, *known).by_depth - math.log(2.0)) > 1  # it would have been heard
    assert compare(masked, *known_masked).by_depth == pytest.approx(math.log(2.0), abs=1e-6)


def one_pair(world: World, capture: Capture, errors: Errors = EXACT):
    """The oracle's answer about the first and the last frame, and the two as `compare` wants them."""
    last = capture.frame_count - 1
    frames = [known_frame(capture, t, world.size[0]) for t in (0, last)]
    (pair,) = PointOracle(world, errors).predict([(0, last)])
    return pair, frames


def test_depth_that_was_filled_in_says_nothing(world):
    capture = in_units(world, 2.0)
    lower = np.arange(world.size[1])[:, None] > world.size[1] // 3
    confidence = np.where(lower, CONFIDENCE_FILLED, capture.confidence).astype(np.float16)
    found = measured(world, replace(capture, confidence=confidence, depth=capture.depth * np.where(lower, 5, 1)), EXACT)
    assert found.metres_per_unit == pytest.approx(2.0, rel=1e-6)


def test_another_lens_of_the_network_does_no_harm(world):
    """What it takes for a 20 % longer lens it takes to be 20 % further away: things keep their size."""
    capture = in_units(world, 2.0)
    pair, frames = one_pair(world, capture)
    longer = {}
    for name in ("ii", "jj"):
        view = getattr(pair, name)
        points = view.points.clone()
        points[..., 2] *= 1.2
        longer[name] = replace(view, points=points)
    assert compare(replace(pair, **longer), *frames).by_depth == pytest.approx(math.log(2.0), abs=1e-3)


def test_the_path_says_the_same_as_depth(world):
    pair, frames = one_pair(world, in_units(world, 37.0))
    said = compare(pair, *frames)
    assert said.by_path == pytest.approx(math.log(37.0), abs=1e-4)
    pair, frames = one_pair(world, in_units(world, 37.0), AS_RECORDED)
    assert compare(pair, *frames).by_path == pytest.approx(math.log(37.0), abs=0.25)


def test_a_path_that_does_not_fit_the_depth_is_refused(world):
    capture = in_units(world, 1.0)
    cameras = capture.world_from_camera.copy()
    cameras[:, :3, 3] *= 1.8
    with pytest.raises(UserError, match="depth and path of the capture do not fit"):
        measured(world, replace(capture, world_from_camera=cameras))


def test_pairs_that_disagree_are_refused(world):
    with pytest.raises(UserError, match="disagree about the scale"):
        measured(world, in_units(world, 1.0), Errors(scale=1.0))


def test_a_capture_of_another_shape_is_refused(world):
    capture = in_units(world, 1.0)
    noise = np.exp(np.random.default_rng(0).normal(0, 1, capture.depth.shape)).astype(np.float32)
    flat = replace(capture, depth=capture.depth * noise, world_from_camera=locked_off(20).world_from_camera)
    with pytest.raises(UserError, match=r"see the capture's shapes|see the same still surface"):
        measured(world, flat)


def test_a_metric_capture_is_told_so(world):
    with pytest.raises(UserError, match="its unit is the metre already"):
        measured(world, as_capture(world))


def test_a_locked_camera_has_a_scale_by_its_depth():
    world = locked_off(16)
    world = replace(
        world, rgb=world.rgb + np.arange(16, dtype=np.uint8)[:, None, None, None]
    )  # told apart by the oracle
    found = measured(world, in_units(world, 3.0))
    assert abs(math.log(found.metres_per_unit / 3.0)) < found.spread


def test_one_stray_pair_does_not_count():
    fine = [PairScale(0.01 * n, 0.02, 0.0) for n in range(-4, 5)]
    found = agreed([*fine, PairScale(2.0, 0.02, 0.0)], np.full(10, 8.0), 10, ())
    assert found.pairs == 9
    assert found.metres_per_unit == pytest.approx(1.0, abs=0.01)
    assert found.spread == pytest.approx(np.sqrt(60e-4 / 8), rel=0.1)


def test_too_few_pairs_are_no_answer():
    blind = PairScale(math.nan, math.nan, math.nan)
    with pytest.raises(UserError, match="Only 2 of 6 pairs"):
        agreed([PairScale(0.0, 0.02, 0.0)] * 2 + [blind] * 4, np.full(6, 8.0), 6, ())
    with pytest.raises(UserError, match="disagree about the scale: 3 of 6"):
        agreed([PairScale(v, 0.02, 0.0) for v in (-1, 0, 0, 0, 1, 2)], np.full(6, 8.0), 6, ())
    with pytest.raises(UserError, match="disagree about the scale: 6 of 6 are near the middle one, and those 4"):
        agreed([PairScale(v, 0.02, 0.0) for v in (-0.4, -0.4, -0.3, 0.3, 0.4, 0.4)], np.full(6, 8.0), 6, ())


def test_frames_are_spread_over_the_clip_and_see_parallax(world):
    capture = in_units(world, 1.0)
    choice = choose_pairs(capture, 12)
    assert {0, 19} <= set(choice.frames.tolist())
    assert len(choice.frames) <= 12
    assert 3 <= len(choice.pairs) <= 12
    assert (choice.pairs[:, 0] < choice.pairs[:, 1]).all()
    assert choice.parallax_deg.min() > 3
    assert len(choose_pairs(capture, 4).frames) <= 4


def test_frames_without_a_measured_camera_are_not_asked(world):
    capture = in_units(world, 1.0)
    reports = tuple(replace(f, interpolated=t in (0, 19), registered=t != 5) for t, f in enumerate(capture.frames))
    cameras = capture.world_from_camera.copy()
    cameras[7] = np.nan
    choice = choose_pairs(replace(capture, frames=reports, world_from_camera=cameras), 12)
    assert not {0, 5, 7, 19} & set(choice.frames.tolist())


def test_frames_that_see_nothing_in_common_are_refused():
    turned = room(4, motion="locked")
    cameras = hand_held(4, "locked")
    for k in range(4):  # a quarter of a turn from one to the next
        angle = k * np.pi / 2
        cameras[k, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    capture = replace(in_units(turned, 1.0), world_from_camera=cameras)
    with pytest.raises(UserError, match="No two frames of the capture see the same"):
        choose_pairs(capture, 12)


def test_the_scale_is_recorded_and_nothing_else_changes(world, tmp_path):
    folder = write_capture(in_units(room(3), 1.0), tmp_path / "shot")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    record_scale(folder, MetricScale(0.5, 0.4, 0.6, 0.05, 9, "mast3r", (STAMP,)))
    scale = MetricScale(0.37, 0.35, 0.40, 0.04, 9, "mast3r", (STAMP,))
    record_scale(folder, scale)
    found = read_capture(folder)
    assert found.scale == scale
    assert not found.metric
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {n for n in after if after[n] != before.get(n)} == {"capture.json"}
    info, earlier = json.loads(after["capture.json"]), json.loads(before["capture.json"])
    info.pop("scale")
    assert info == earlier


def test_a_scale_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    folder = write_capture(in_units(room(3), 1.0), tmp_path / "shot")
    record_scale(folder, MetricScale(0.5, 0.4, 0.6, 0.05, 9, "mast3r"))
    names = sorted(p.name for p in folder.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("os.replace", "backend.metric.record.flush"):
        with monkeypatch.context() as patch:
            patch.setattr(function, full)
            with pytest.raises(UserError, match=r"could not be written .*No space left"):
                record_scale(folder, MetricScale(0.7, 0.6, 0.8, 0.05, 9, "mast3r"))
        assert read_capture(folder).scale.metres_per_unit == 0.5
        assert sorted(p.name for p in folder.iterdir()) == names


def test_a_capture_with_an_engines_errors_has_its_scale():
    """Path, lens and depth off as MonST3R's are, in a world of its own axes whose unit is 0.59 m."""
    true = film_room(travelling(12), (192, 112), 180.0)
    capture = oracle_capture(true, scale=1.7)
    assert capture.processed_size == (192, 112)
    world = World(capture.rgb, true.depth, true.masks, true.world_from_camera, true.intrinsics)
    found = measured(world, capture)
    assert found.low < 1 / 1.7 < found.high
    assert abs(found.metres_per_unit * 1.7 - 1) < 0.05


@pytest.mark.parametrize(
    ("size", "network_size"), [((200, 125), (128, 80)), ((90, 150), (64, 128)), ((96, 96), (128, 96))]
)
def test_a_frame_is_seen_by_the_network_where_the_capture_has_it(world, size, network_size):
    """Depth that grows along x, and pictures as bright as it: resized and cropped alike."""
    width, height = size
    ramp = np.broadcast_to((np.arange(width) + 0.5), (1, height, width)).astype(np.float32)
    capture = as_capture(world)
    one = replace(capture.clip, plate_size=size, frame_indices=(0,), timestamps=(0.0,))
    grey = np.broadcast_to(ramp[..., None], (1, height, width, 3)).astype(np.uint8)
    capture = replace(
        capture,
        clip=one,
        world_from_camera=np.eye(4)[None],
        intrinsics=np.array([[100.0, 100.0, width / 2, height / 2]]),
        rgb=grey,
        depth=ramp,
        confidence=np.ones_like(ramp, np.float16),
        dynamic=np.zeros(ramp.shape, bool),
        frames=capture.frames[:1],
        tracks=None,
    )
    known = known_frame(capture, 0, 128)
    assert known.depth.shape == known.rgb.shape[:2] == network_size[::-1]
    inner = np.s_[:, 3:-3]
    assert np.abs(known.depth[inner] - known.rgb[inner][..., 0]).max() <= 1.5  # half a pixel of either
    assert known.focal_px == pytest.approx(100 * 128 / max(size), rel=0.01)
