"""What can be set of the MASt3R engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Settings, option
from .shared import clean_points_option, cyclic_option, min_confidence_option, pairs_at_once_option, precision_option


@dataclass(frozen=True)
class MASt3RSettings(Settings):
    """Settings of the MASt3R engine; docs/mast3r.md says which option of the original each one answers."""

    footage: str = option(
        "auto",
        "Footage",
        "Whether the frames follow each other",
        choices=(
            ("auto", "Automatic", "A video is a sequence, a folder of images is a set"),
            ("sequence", "Sequence", "Each frame shows nearly what the one before it shows"),
            ("set", "Set", "Photographs of one place, in any order"),
        ),
    )
    scene_graph: str = option(
        "auto",
        "Pairs",
        "Which frames are compared with each other",
        choices=(
            ("auto", "Automatic", "All of few frames; else doubling distances in a sequence, the most alike in a set"),
            ("complete", "All", "Every frame with every other one: for a few dozen"),
            ("retrieval", "Most Alike", "Each frame with those that look most like it"),
            ("swin", "Neighbours", "Neighbours at distances 1, 2, 3 and so on"),
            ("logwin", "Doubling Distances", "Neighbours at distances 1, 2, 4, 8 and so on"),
            ("oneref", "First Frame", "Every frame with the first one: for small motion"),
        ),
        advanced=True,
    )
    neighbours: int = option(
        6, "Neighbours", "How many other frames each frame is compared with", minimum=1, maximum=30, advanced=True
    )
    key_images: int = option(
        20,
        "Key Images",
        "With the most alike: so many images that differ most are all compared with each other",
        minimum=2,
        maximum=200,
        advanced=True,
    )
    cyclic: bool = cyclic_option()
    solve_every: int = option(
        1,
        "Solve Every",
        "Solve every n-th frame of a sequence; the ones between get their camera and depth from these",
        minimum=1,
        maximum=100,
        unit="frames",
    )
    solve_fps: float = option(
        0.0,
        "Solve Rate",
        "Solve about so many frames of a sequence a second, and fill in the ones between; 0 goes by Solve Every",
        minimum=0.0,
        maximum=240.0,
        advanced=True,
    )
    lenses: str = option(
        "auto",
        "Lens",
        "How many focal lengths are solved when the lens is not known; a known one is kept",
        choices=(
            ("auto", "Automatic", "One for a sequence, each image its own in a set"),
            ("shared", "Shared", "All frames were shot with one lens at one focal length"),
            ("each", "Per Image", "Each image has a focal length of its own, as after zooming"),
        ),
    )
    principal_point: bool = option(
        False,
        "Principal Point",
        "Solve where the lens looks, too; without it the middle of the picture, which is more precise",
        advanced=True,
    )
    match_confidence: float = option(
        0.0,
        "Min Match",
        "Pairs none of whose matches is surer than this are left out",
        minimum=0.0,
        maximum=30.0,
        advanced=True,
    )
    clean_points: bool = clean_points_option()
    min_confidence: float = min_confidence_option()
    refine_camera: bool = option(
        True,
        "Refine Camera",
        "Bundle adjustment of points tracked on the plate of a sequence, kept where it lowers the error",
    )
    precision: str = precision_option("fastest", "compiled")
    pairs_at_once: int = pairs_at_once_option()
