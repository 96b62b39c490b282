"""Laws of optical flow: what is computed how often, which of it is valid, and that RAFT's parts make RAFT."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backend.geometry.camera import pixel_centres, project, unproject
from backend.nets.flow import ClassicalFlow, FlowPredictor, flows_agree, stays_inside
from backend.nets.memory import Chunks
from backend.nets.raft import RaftFlow, load_flow, new_raft
from backend.run import Run
from backend.wire import Cancelled, UserError
from tests.worlds import room

EDGES = [(0, 1), (1, 0), (2, 1)]


def pictures(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: one smooth texture, cut out at places a few pixels apart."""
    noise = torch.from_numpy(np.random.default_rng(seed).random((1, 3, height // 8 + 4, width // 8 + 4)))
    scene = F.interpolate(noise, scale_factor=8, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0) * 255
    return np.stack([scene[t : t + height, 3 * t : 3 * t + width].byte().numpy() for t in range(frames)])


def raft(model: str = "small") -> torch.nn.Module:
    torch.manual_seed(0)
    return new_raft(model)


class Shift(FlowPredictor):
    """An oracle: everything moves by `step` pixels to the right a frame. Keeps what it was asked for."""

    def __init__(self, frames: int = 4, step: float = 2.0, **options):
        images, run = np.zeros((frames, 16, 32, 3), np.uint8), options.get("run", Run())
        super().__init__(images, run, options.get("both_ways", True), Chunks(2, "cpu", "couple of frames"))
        self.step, self.asked = step, []

    def _flows(self, pairs):
        self.asked += pairs
        return torch.stack([torch.tensor([self.step * (j - i), 0.0]).view(2, 1, 1).expand(2, 16, 32) for i, j in pairs])


def test_each_direction_is_computed_once_and_stands_where_it_was_asked_for():
    oracle = Shift()
    edges = [(3, 1), (0, 1), (1, 3), (0, 1), (1, 0)]
    found = oracle.predict(edges)
    assert Counter(oracle.asked) == Counter({(0, 1), (1, 0), (1, 3), (3, 1)})
    assert found.edges.tolist() == [list(edge) for edge in edges]
    assert found.flow.shape == (5, 2, 16, 32)
    assert found.flow.dtype == torch.float16
    assert found.flow[:, 0, 0, 0].tolist() == [-4, 2, 4, 2, -2]
    # Two pixels to the right lead out of the last two columns.
    assert found.valid[1].float().mean(0).tolist() == [1] * 30 + [0] * 2


def test_the_way_back_is_computed_for_validity_only_where_asked():
    oracle = Shift()
    oracle.predict([(0, 1)])
    assert sorted(oracle.asked) == [(0, 1), (1, 0)]
    oracle = Shift(both_ways=False)
    assert oracle.predict([(0, 1)]).valid[0, :, :30].all()
    assert oracle.asked == [(0, 1)]


def test_no_edges_no_flows_and_frames_that_do_not_exist_are_a_bug():
    assert Shift().predict([]).flow.shape == (0, 2, 16, 32)
    with pytest.raises(ValueError, match="frames outside"):
        Shift().predict([(0, 4)])


def test_flow_can_be_cancelled_between_pairs():
    asked = []
    oracle = Shift(frames=9, run=Run(is_cancelled=lambda: len(asked) > 3))
    oracle.asked = asked
    with pytest.raises(Cancelled):
        oracle.predict([(0, j) for j in range(1, 9)])
    assert len(asked) == 4


def test_what_is_not_finite_is_not_valid():
    class Broken(Shift):
        def _flows(self, pairs):
            flow = super()._flows(pairs).clone()
            flow[:, 0, 3, 4] = torch.nan
            return flow

    found = Broken(step=0.0).predict([(0, 1), (1, 0)])
    assert found.flow.isfinite().all()
    assert not found.valid[:, 3, 4].any()
    assert found.valid.sum() >= 2 * (16 * 32 - 9)


def test_flows_agree_within_a_tolerance_that_grows_with_the_motion():
    flow = torch.zeros(1, 2, 20, 200)
    flow[:, 0] = 30
    back = -flow
    back[:, 1] += 1.0  # misses by a pixel: much for a small motion, little for one of 30 pixels
    inner = (..., slice(0, 100))
    assert flows_agree(flow, back)[inner].all()
    assert not flows_agree(flow / 30, -flow / 30 + (back + flow))[inner].any()
    back[:, 1] = 6.0
    assert not flows_agree(flow, back)[inner].any()
    assert stays_inside(flow).float().mean() == pytest.approx(170 / 200)


@pytest.mark.parametrize("model", ["large", "small"])
@pytest.mark.slow
def test_with_frames_encoded_once_raft_is_still_raft(model):
    images = pictures(3, 128, 136)
    network = raft(model)
    as_input = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    flow = RaftFlow(images, network, Run(), updates=3, couples_at_once=1)
    encoded, refined = [], []
    with torch.inference_mode():
        expected = torch.cat([network(as_input[[i]], as_input[[j]], num_flow_updates=3)[-1] for i, j in EDGES])
        network.feature_encoder.register_forward_hook(lambda m, x, y: encoded.append(len(y)))
        network.update_block.register_forward_hook(lambda m, x, y: refined.append(len(y[1])))
        torch.testing.assert_close(flow._flows(EDGES), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().amax() > 0.5  # the comparison is of something
    assert sum(encoded) == 3
    assert sum(refined) == 3 * len(EDGES)
    assert not network.corr_block.corr_pyramid


@pytest.mark.slow
def test_half_precision_is_near_the_full_one():
    images = pictures(2, 128, 128)
    full, half = (RaftFlow(images, raft(), Run(), updates=2, precision=p) for p in (torch.float32, torch.bfloat16))
    expected, found = full._flows([(0, 1)]), half._flows([(0, 1)])
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_windows_that_share_frames_encode_them_once():
    images = pictures(4, 128, 128)
    network = raft()
    encoded = []
    network.feature_encoder.register_forward_hook(lambda m, x, y: encoded.append(len(y)))
    flow = RaftFlow(images, network, Run(), updates=1)
    flow.predict([(0, 1), (1, 2)])
    flow.predict([(1, 2), (2, 3)])
    assert sum(encoded) == 4
    forgetful = RaftFlow(images, network, Run(), updates=1, cache_bytes=0)
    forgetful.predict([(0, 1), (1, 2)])
    assert len(forgetful._encoded) == 1


@pytest.mark.parametrize(("height", "width"), [(130, 149), (64, 96)], ids=["uneven", "small"])
def test_pictures_of_any_size_are_fitted_to_raft_and_back(height, width):
    images = pictures(2, height, width)
    network = raft()
    head = network.update_block.flow_head.conv2
    head.weight.data.zero_()
    head.bias.data = torch.tensor([0.5, -0.25])  # a constant motion, in cells of 8 pixels
    found = RaftFlow(images, network, Run(), updates=2).predict([(0, 1)])
    enlarged = max(1, 128 / height)
    assert found.flow.shape == (1, 2, height, width)
    expected = torch.tensor([8.0, -4.0]).view(1, 2, 1, 1) / enlarged
    torch.testing.assert_close(found.flow.float(), expected.expand(1, 2, height, width), atol=0.01, rtol=0)


@pytest.mark.slow
def test_short_memory_means_fewer_pairs_at_once_and_at_one_pair_an_error(caplog):
    images = pictures(3, 128, 128)
    network = raft()
    limit = [99]

    def crowded(module, arguments):
        if len(arguments[0]) > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.update_block.register_forward_pre_hook(crowded)
    enough = RaftFlow(images, network, Run(), updates=1, couples_at_once=3).predict(EDGES)
    limit[0] = 1
    scarce = RaftFlow(images, network, Run(), updates=1, couples_at_once=3).predict(EDGES)
    torch.testing.assert_close(scarce.flow, enough.flow, atol=0.01, rtol=1e-3)
    assert (scarce.valid == enough.valid).float().mean() > 0.99
    assert "going on with 1" in caplog.text
    limit[0] = 0
    with pytest.raises(UserError, match="not enough for one couple of frames"):
        RaftFlow(images, network, Run(), updates=1, couples_at_once=3).predict(EDGES)


def test_weights_come_from_a_file_and_those_of_another_network_are_refused(tmp_path):
    network = raft()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    loaded = load_flow(tmp_path / "raft.pth", "small")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor)
    with pytest.raises(UserError):
        load_flow(tmp_path / "raft.pth", "large")


def test_classical_flow_is_near_the_true_motion_and_knows_what_is_hidden():
    world = room(frames=3, width=192, height=128)
    found = ClassicalFlow(world.rgb, Run(threads=1)).predict([(0, 1), (1, 0)])
    for (i, j), flow, valid in zip(found.edges.tolist(), found.flow.float().numpy(), found.valid.numpy()):
        points = unproject(world.depth[[i]], world.intrinsics[[i]], world.world_from_camera[[i]])[0]
        seen, _ = project(points.reshape(-1, 3), world.intrinsics[j], world.world_from_camera[j])
        truth = seen.reshape(128, 192, 2) - pixel_centres(192, 128)
        error = np.linalg.norm(flow.transpose(1, 2, 0) - truth, axis=-1)[~world.dynamic[i]]
        sound = valid[~world.dynamic[i]]
        assert np.median(error[sound]) < 0.3
        assert 0.5 < sound.mean() < 0.95
        assert (error[~sound] > 2).mean() > 4 * (error[sound] > 2).mean()
