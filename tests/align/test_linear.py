"""Banded systems with a border give what dense ones give, for a fraction of the memory."""

import pytest
import torch

from backend.align import unknowns as module
from backend.align.graph import make_pairs
from backend.align.linear import Band, Banded, Dense
from backend.align.normal import Noise, normal_equations
from backend.align.sampled import sample, sample_pixels
from backend.align.solve import with_knowns
from backend.align.start import start
from backend.align.unknowns import NOTHING_KNOWN, Knowns, Unknowns
from tests.pair_oracle import FlowOracle, PairOracle
from tests.worlds import hand_held_room

INNER, BORDER, WIDTH = 12, 2, 3


@pytest.fixture
def filled() -> tuple[Dense, Banded]:
    """The same positive definite numbers added to both, in a shuffled order of the unknowns."""
    generator = torch.Generator().manual_seed(0)
    count = INNER + BORDER
    place = torch.cat([torch.randperm(count, generator=generator), torch.tensor([count])])
    dense, banded = Dense(count, torch.device("cpu")), Banded(Band(place, INNER, WIDTH))
    at = torch.argsort(place[:count])
    for begin in range(INNER - WIDTH):
        some = torch.cat([at[begin : begin + WIDTH + 1], at[INNER:], torch.tensor([count])])  # and one that is dropped
        half = torch.randn(len(some), len(some), generator=generator, dtype=torch.float64)
        for matrix in (dense, banded):
            matrix.add(some[:, None], some[None, :], half @ half.T)
    return dense, banded


def test_both_hold_the_same_numbers(filled):
    dense, banded = filled
    torch.testing.assert_close(banded.dense(), dense.dense())
    torch.testing.assert_close(banded.diagonal(), dense.diagonal())


def test_both_solve_alike(filled):
    dense, banded = filled
    shift = torch.linspace(0, 1, INNER + BORDER, dtype=torch.float64)
    right = torch.randn(INNER + BORDER, 2, dtype=torch.float64)
    torch.testing.assert_close(banded.solve(shift, right), dense.solve(shift, right))


def test_what_is_not_positive_definite_has_no_answer(filled):
    down = torch.full((INNER + BORDER,), -1e6, dtype=torch.float64)
    for matrix in filled:
        assert matrix.solve(down, torch.ones(INNER + BORDER, 1, dtype=torch.float64)) is None


@pytest.mark.parametrize(
    "knowns", [NOTHING_KNOWN, Knowns(per_frame_focal=True), Knowns(focal_px=torch.full((16,), 43.0))]
)
def test_the_step_of_a_long_clip_is_the_dense_one(knowns, monkeypatch):
    world = hand_held_room(16, 48, 32)
    pairs = make_pairs("swinstride-1-noncyclic", 16)
    sampled = sample(PairOracle(world).predict(pairs), FlowOracle(world).predict(pairs), sample_pixels((48, 32), 60))
    state = with_knowns(start(sampled, 16), knowns)
    steps = []
    for least in (10_000, 10):
        monkeypatch.setattr(module, "LEAST_BANDED", (least, least))
        unknowns = Unknowns(sampled.edges, 16, knowns)
        assert (unknowns.band is None) == (least > 10)
        normal = normal_equations(sampled, state, Noise(0.03, 1.0, 1.0, 0.05))
        steps.append(unknowns.assemble(normal, state, 1e-3).step(1e-3))
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-5, atol=1e-7)
