"""What can be set of the classical engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Settings, option
from .shared import metric_scale_option


@dataclass(frozen=True)
class ClassicalSettings(Settings):
    """Settings of the classical engine."""

    max_features: int = option(
        500,
        "Tracks",
        "Points followed through the picture at a time for the camera solve; more is slower and helps on soft plates",
        minimum=100,
        maximum=4000,
        advanced=True,
    )
    find_movers: bool = option(
        True, "Find Movers", "Mask what moves by itself and solve the camera a second time without it"
    )
    mover_threshold: float = option(
        1.0,
        "Threshold",
        "How far a pixel must leave its epipolar line to count as moving; lower masks more",
        minimum=0.2,
        maximum=5.0,
        unit="factor",
    )
    fill_holes: bool = option(
        True, "Fill Holes", "Fill pixels without a measured depth from their surroundings, at low confidence"
    )
    movers_as_cards: bool = option(
        True, "Movers as Cards", "Stand moving subjects as flat cards where they touch the ground, at low confidence"
    )
    metric_scale: str = metric_scale_option()
