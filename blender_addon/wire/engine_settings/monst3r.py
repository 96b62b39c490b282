"""What can be set of the MonST3R engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Settings, option
from .shared import (
    FLOWS,
    camera_option,
    clean_points_option,
    cyclic_option,
    find_movers_option,
    flow_updates_option,
    metric_scale_option,
    min_confidence_option,
    pairs_at_once_option,
    precision_option,
    refine_camera_option,
    refine_masks_option,
    user_masks_option,
    zoom_option,
)


@dataclass(frozen=True)
class MonST3RSettings(Settings):
    """Settings of the MonST3R engine; docs/monst3r.md says which flag of the original each one answers."""

    mode: str = option(
        "full",
        "Mode",
        "How much work goes into the capture",
        choices=(
            ("full", "Full", "Align all frames, find movers, refine the camera"),
            ("preview", "Preview", "Compare each frame with the middle one: rough cameras and points, in seconds"),
        ),
    )
    model: str = option(
        "monst3r",
        "Model",
        "The published weights that say where each pixel is",
        choices=(
            ("monst3r", "MonST3R", "For scenes with movement"),
            ("dust3r_512", "DUSt3R", "For scenes that stand still"),
            ("dust3r_224", "DUSt3R 224", "Small and square: faster, coarser, and the picture's ends are cut off"),
        ),
        advanced=True,
    )
    precision: str = precision_option("fastest", "compiled")
    scene_graph: str = option(
        "swinstride",
        "Pairs",
        "Which frames are compared with each other",
        choices=(
            ("swinstride", "Every Second Neighbour", "Neighbours at distances 1, 3, 5 and so on"),
            ("swin", "Neighbours", "Neighbours at distances 1, 2, 3 and so on"),
            ("swin2stride", "Every Third Neighbour", "Neighbours at distances 1, 4, 7 and so on"),
            ("logwin", "Doubling Distances", "Neighbours at distances 1, 2, 4, 8 and so on"),
            ("complete", "All", "Every frame with every other one: for short clips"),
            ("oneref", "First Frame", "Every frame with the first one: for small motion"),
        ),
        advanced=True,
    )
    neighbours: int = option(
        5, "Neighbours", "How many neighbours each frame is compared with", minimum=1, maximum=30, advanced=True
    )
    cyclic: bool = cyclic_option()
    solve_every: int = option(
        1,
        "Solve Every",
        "Solve every n-th frame; the ones between get their camera, depth and mask from these",
        minimum=1,
        maximum=100,
        unit="frames",
    )
    solve_fps: float = option(
        0.0,
        "Solve Rate",
        "Solve about so many frames a second, and fill in the ones between; 0 goes by Solve Every",
        minimum=0.0,
        maximum=240.0,
        advanced=True,
    )
    flow: str = option(
        "raft_large",
        "Optical Flow",
        "What follows pixels from frame to frame: it makes the camera precise and tells what moves",
        choices=(
            *FLOWS,
            ("none", "None", "Cameras from the point maps alone, and no movers"),
        ),
    )
    flow_updates: int = flow_updates_option()
    find_movers: bool = find_movers_option()
    mover_threshold: float = option(
        1.0,
        "Threshold",
        "How far a pixel must leave the motion of the camera to count as moving; lower masks more",
        minimum=0.2,
        maximum=5.0,
        unit="factor",
    )
    refine_masks: str = refine_masks_option()
    user_masks: str = user_masks_option()
    camera: str = camera_option()
    zoom: bool = zoom_option()
    refine_camera: bool = refine_camera_option()
    clean_points: bool = clean_points_option()
    min_confidence: float = min_confidence_option()
    window_frames: int = option(
        100,
        "Window",
        "Longer clips are solved in windows of so many frames, so that memory does not grow",
        minimum=10,
        maximum=2000,
        unit="frames",
        advanced=True,
    )
    pairs_at_once: int = pairs_at_once_option()
    metric_scale: str = metric_scale_option()
