"""Options that several engines have, written once."""

from __future__ import annotations

from typing import Any

from ..options import option

#: What follows pixels from frame to frame.
FLOWS = (
    ("raft_large", "RAFT", "A network of 20 MB"),
    ("raft_small", "RAFT Small", "Faster and coarser"),
    ("classical", "Classic", "Without a network: follows large motion less well"),
)


def metric_scale_option() -> Any:
    """What engines have whose captures are not in metres."""
    return option(
        "none",
        "Metric Scale",
        "Measure how many metres the unit of the capture is; everything else stays in its own unit",
        choices=(
            ("none", "Not Measured", "The capture has a unit of its own"),
            ("mast3r", "MASt3R", "By what a network sees in metres: weights of 2.8 GB, no commercial use"),
        ),
    )


def precision_option(*more: str) -> Any:
    """How exactly a network calculates; `more` names choices beyond those that all have."""
    choices = (
        ("auto", "Automatic", "Fast on graphics cards that can, exact elsewhere"),
        ("exact", "Exact", "32-bit numbers throughout"),
        ("fast", "Fast", "16-bit numbers in the trunk"),
        ("fastest", "Fastest", "16-bit numbers throughout"),
        ("compiled", "Fast and Compiled", "As Fast, compiled for the card: minutes before the first result"),
    )
    return option(
        "auto",
        "Precision",
        "How exactly the network calculates",
        choices=tuple(row for row in choices if row[0] in ("auto", "exact", "fast", *more)),
        advanced=True,
    )


def pairs_at_once_option() -> Any:
    """For networks that are asked about pairs."""
    return option(
        0,
        "Pairs at Once",
        "Most pairs the network is given at a time; 0 fits the memory",
        minimum=0,
        maximum=256,
        advanced=True,
    )


def cyclic_option() -> Any:
    """For clips that are compared pair by pair."""
    return option(
        False, "Cyclic", "The clip ends where it began: compare its last frames with its first", advanced=True
    )


def clean_points_option() -> Any:
    """For depth that several frames have a say in."""
    return option(True, "Clean Points", "Take the confidence from points that hang in front of what other frames see")


def min_confidence_option() -> Any:
    """For confidences of networks of this family, 1 and above."""
    return option(
        1.5, "Confidence", "Points below this confidence are hidden at first", minimum=1.0, maximum=100.0, advanced=True
    )


def flow_updates_option() -> Any:
    """For RAFT."""
    return option(12, "Flow Updates", "How often RAFT improves its flow", minimum=1, maximum=64, advanced=True)


def find_movers_option() -> Any:
    """For engines that keep movers out of the camera solve."""
    return option(True, "Find Movers", "Mask what moves by itself and keep it from bending the camera")


def refine_masks_option() -> Any:
    """For engines that find movers."""
    return option(
        "none",
        "Refine Masks",
        "Sharpen the masks with SAM 2, whose weights are got separately",
        choices=(
            ("none", "No", "As they are found, sharpened along the edges of the picture"),
            ("sam2_tiny", "SAM 2 Tiny", "The fastest"),
            ("sam2_small", "SAM 2 Small", "Between the others"),
            ("sam2_large", "SAM 2 Large", "The best masks; takes the longest"),
        ),
    )


def user_masks_option() -> Any:
    """For engines that find movers and may be given masks of some."""
    return option(
        "add",
        "Given Masks",
        "What masks that you give do",
        choices=(("add", "Add", "They are added to what is found"), ("replace", "Replace", "Nothing else is masked")),
        advanced=True,
    )


def camera_option() -> Any:
    """For engines that can hold the camera still."""
    return option(
        "auto",
        "Camera",
        "How the camera moves",
        choices=(
            ("auto", "Automatic", "As the picture tells"),
            ("moving", "Moving", "It travels or turns"),
            ("locked", "Locked Off", "It does not move at all"),
        ),
    )


def zoom_option() -> Any:
    """For engines that solve the lens."""
    return option(False, "Zoom", "The focal length changes within the clip: solve it for each frame")


def refine_camera_option() -> Any:
    """For engines whose cameras are fitted to the plate in the end."""
    return option(
        True, "Refine Camera", "Bundle adjustment of points tracked on the plate, kept where it lowers the error"
    )
