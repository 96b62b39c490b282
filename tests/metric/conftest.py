"""An oracle in the place of the network that measures scales."""

from __future__ import annotations

from functools import partial

import pytest

from backend.metric import scale
from tests.pair_oracle import Errors
from tests.worlds import World

from .test_scale import oracle_for


@pytest.fixture
def knows(monkeypatch):
    """Puts an oracle of a world in the network's place, and lets it see the small pictures as they are."""

    def put(world: World, errors: Errors) -> None:
        small = partial(scale.measure_scale, long_side=world.size[0])
        monkeypatch.setattr(scale, "measure_scale", small)
        monkeypatch.setattr("backend.metric.source.matching_network", lambda run: oracle_for(world, errors))

    return put
