"""What can be set of the Point3R engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Settings, option
from .shared import (
    FLOWS,
    camera_option,
    find_movers_option,
    flow_updates_option,
    min_confidence_option,
    precision_option,
    refine_camera_option,
    refine_masks_option,
    user_masks_option,
    zoom_option,
)


@dataclass(frozen=True)
class Point3RSettings(Settings):
    """Settings of the Point3R engine; docs/point3r.md says which command of the original each one answers."""

    cameras: str = option(
        "points",
        "Cameras From",
        "What says where each frame's camera is",
        choices=(
            ("points", "Points", "The frame's own points laid onto where they are in the world: the more precise"),
            ("network", "Network", "The network's own guess, as published: drifts more"),
        ),
        advanced=True,
    )
    refine_path: bool = option(
        True, "Refine Path", "Solve neighbouring frames against each other once the clip is through: less drift"
    )
    close_loops: bool = option(
        True,
        "Close Loops",
        "Find where the camera comes back to what it saw before, and take the drift out",
    )
    camera: str = camera_option()
    zoom: bool = zoom_option()
    refine_camera: bool = refine_camera_option()
    find_movers: bool = find_movers_option()
    mover_threshold: float = option(
        1.0,
        "Threshold",
        "How far a pixel must leave its place in the world to count as moving; lower masks more",
        minimum=0.2,
        maximum=5.0,
        unit="factor",
    )
    flow: str = option(
        "none",
        "Optical Flow",
        "What else tells movers, besides that they no longer fit what was seen before",
        choices=(("none", "None", "Nothing else"), *FLOWS),
    )
    flow_updates: int = flow_updates_option()
    refine_masks: str = refine_masks_option()
    user_masks: str = user_masks_option()
    min_confidence: float = min_confidence_option()
    precision: str = precision_option("fastest", "compiled")
