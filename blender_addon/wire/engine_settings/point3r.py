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
            ("points", "Points", "The frame's own points laid onto the same in the world, as far as they agree"),
            ("pixels", "Pixels", "Where the points of the world are seen in the picture"),
            ("published", "All Points", "As Points, but all of them and at one size, as published"),
            ("network", "Network", "The network's own guess, as published: drifts most"),
        ),
        advanced=True,
    )
    steady: bool = option(
        True,
        "Steady",
        "Points followed from each picture to the next take the jitter out of the path",
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
    ignore_far: bool = option(
        True,
        "Ignore Far Points",
        "The few farthest points, such as of the sky, do not decide how finely the memory tells places apart",
        advanced=True,
    )
    skip_doubtful: float = option(
        0.25,
        "Skip Doubtful",
        "The share of each frame, where the network is least sure, that is not remembered; 0 remembers all",
        minimum=0.0,
        maximum=0.9,
        unit="factor",
        advanced=True,
    )
    weigh_memory: bool = option(
        True,
        "Weigh Memory",
        "A place seen again is remembered by how sure the network was each time; off keeps the newest alone",
        advanced=True,
    )
    forget_after: int = option(
        3,
        "Forget After",
        "What so many frames see right through is forgotten, such as where a mover was; 0 forgets nothing, 1 is as 2",
        minimum=0,
        maximum=1000,
        unit="frames",
        advanced=True,
    )
    most_read: int = option(
        0,
        "Most Places",
        "Most places of the memory that a frame is compared with; 0 compares it with all",
        minimum=0,
        maximum=100000,
        advanced=True,
    )
    min_confidence: float = min_confidence_option()
    precision: str = precision_option("fastest", "compiled")
