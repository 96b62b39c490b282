"""The real network's way to a scale: loaded from installed weights, asked about the chosen frames."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backend.metric import source
from backend.metric.scale import measure_scale
from backend.run import Run
from backend.wire import UserError
from tests.recipe import matching_net
from tests.worlds import hand_held_room

from .test_scale import in_units

STAMP = {"name": "mast3r", "commercial_use": False}


@pytest.fixture
def installed(monkeypatch):
    """A tiny network with weights by a formula, as if it were installed."""
    monkeypatch.setattr(source, "find_installed", lambda name: SimpleNamespace(stamp=lambda: {**STAMP, "name": name}))
    monkeypatch.setattr(source, "load_mast3r", lambda installed: matching_net())


@pytest.mark.usefixtures("installed")
def test_a_network_that_knows_nothing_gives_no_scale():
    capture = in_units(hand_held_room(6), 2.0)
    told = []
    run = Run(report=lambda progress: told.append(progress.stage_fraction), reports_per_second=1e9)
    with run.stage("Measuring"), pytest.raises(UserError, match=r"of \d+ pairs of frames see the capture's shapes"):
        measure_scale(capture, source.matching_network(run), run, long_side=96)
    assert sorted(told)[-1] == 1.0


@pytest.mark.usefixtures("installed")
def test_it_answers_for_the_pictures_it_was_given():
    world = hand_held_room(3)
    views, stamps = source.matching_network(Run())(world.rgb)
    assert stamps == (STAMP,)
    (pair,) = views.predict([(0, 2)])
    assert (pair.i, pair.j) == (0, 2)
    assert pair.ij.points.shape == (*world.rgb.shape[1:3], 3)
