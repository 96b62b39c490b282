"""The sample of pixels that the solver reads: a regular grid, with weight only where a prediction can be used."""

import pytest
import torch

from backend.align.predictions import PairFlows
from backend.align.sampled import sample, sample_pixels

from .synthetic import room_pairs


def sampled_room(count=60, **options):
    truth = room_pairs(frame_count=3, **options)
    return truth, sample(truth.predictions, truth.flows, sample_pixels((48, 32), count))


@pytest.mark.parametrize(("size", "count"), [((48, 32), 60), ((512, 288), 600), ((288, 512), 600), ((224, 224), 500)])
def test_pixels_stand_on_a_regular_grid_all_over_the_picture(size, count):
    pixels = sample_pixels(size, count)
    assert 0.8 * count <= len(pixels) <= 1.2 * count
    assert len(pixels.unique(dim=0)) == len(pixels)
    for axis in (0, 1):
        places = pixels[:, axis].unique()
        steps = places.diff()
        assert steps.max() - steps.min() <= 1  # regular, to whole pixels
        before, after = int(places[0]), size[axis] - 1 - int(places[-1])
        assert abs(before - after) <= 1  # as much room on either side
        assert 0 <= before <= steps.max()


def test_even_a_tiny_picture_has_two_pixels_each_way():
    assert len(sample_pixels((16, 16), 1)) == 4


def test_a_sample_is_the_predictions_at_its_pixels_and_weight_is_log_confidence():
    truth, sampled = sampled_room()
    x, y = sampled.uv.long().T
    torch.testing.assert_close(sampled.points_i, truth.predictions.points_i[:, y, x].float())
    torch.testing.assert_close(sampled.points_j, truth.predictions.points_j[:, y, x].float())
    torch.testing.assert_close(sampled.weight_i, truth.predictions.confidence_i[:, y, x].float().log())
    torch.testing.assert_close(sampled.weight_j, truth.predictions.confidence_j[:, y, x].float().log())
    torch.testing.assert_close(sampled.flow, truth.flows.flow[:, :, y, x].movedim(1, -1).float())
    assert (sampled.flow_weight == 1).all()
    assert sampled.principal_point.tolist() == [24.0, 16.0]


def test_what_is_not_finite_or_not_valid_has_no_weight():
    truth = room_pairs(frame_count=3)
    p, f = truth.predictions, truth.flows
    pixels = sample_pixels((48, 32), 60)
    x, y = pixels[7].tolist()
    p.points_i[0, y, x, 1] = torch.nan
    p.points_j[1, y, x, 2] = torch.inf
    p.confidence_i[2, y, x] = torch.nan
    p.confidence_j[2, y, x] = 0.5  # less than 1 says nothing, and never pulls the other way
    f.flow[3, 0, y, x] = torch.nan
    f.valid[0, y, x] = False
    sampled = sample(p, f, pixels)
    assert torch.nonzero(sampled.weight_i == 0).tolist() == [[0, 7], [2, 7]]
    assert torch.nonzero(sampled.weight_j == 0).tolist() == [[1, 7], [2, 7]]
    assert torch.nonzero(sampled.flow_weight == 0).tolist() == [[0, 7], [3, 7]]
    for values in (sampled.points_i, sampled.points_j, sampled.flow):
        assert values.isfinite().all()


def test_without_flow_nothing_of_it_counts():
    truth, sampled = sampled_room()
    assert (sample(truth.predictions, None, sampled.uv.long()).flow_weight == 0).all()
    assert (sampled.without_flow().flow_weight == 0).all()


def test_flow_of_moving_pixels_does_not_count_and_the_rest_does():
    truth, sampled = sampled_room(count=400)
    x, y = sampled.uv.long().T
    moves = truth.dynamic[sampled.edges[:, 0]][:, y, x]
    assert moves.any()
    torch.testing.assert_close(sampled.still(truth.dynamic).flow_weight, (~moves).float())


def test_samples_are_cut_joined_and_renumbered_pair_by_pair():
    _, sampled = sampled_room()
    forward = sampled.edges[:, 0] < sampled.edges[:, 1]
    again = sampled.where(forward).joined(sampled.where(~forward))
    order = torch.cat([torch.nonzero(forward)[:, 0], torch.nonzero(~forward)[:, 0]])
    for name in ("edges", "points_i", "points_j", "weight_i", "weight_j", "flow", "flow_weight"):
        assert torch.equal(getattr(again, name), getattr(sampled, name)[order])
    moved = sampled.between(torch.tensor([10, 11, 12]))
    assert torch.equal(moved.edges, sampled.edges + 10)


def test_flow_may_be_in_half_precision_as_predictions_may():
    truth = room_pairs(frame_count=3)
    half = PairFlows(truth.flows.edges, truth.flows.flow.half(), truth.flows.valid)
    sampled = sample(truth.predictions.to(torch.float16), half, sample_pixels((48, 32), 60))
    assert sampled.points_i.dtype == sampled.flow.dtype == sampled.weight_i.dtype == torch.float32
