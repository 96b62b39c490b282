"""What can be set of localising a plate."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Settings, option
from .shared import precision_option


@dataclass(frozen=True)
class LocaliseSettings(Settings):
    """Settings for putting a plate, a clip or one image, into the world of an earlier capture."""

    reference: str = option(
        "", "Reference", "Id of the job on this backend whose capture the plate is put into", advanced=True
    )
    still: bool = option(
        False, "Only This Image", "The plate is the chosen image alone, even where it is one of a numbered sequence"
    )
    near_frame: int = option(
        -1,
        "Near Frame",
        "Frame of the capture, counted from 0, that shows what the plate begins with; -1 finds it",
        minimum=-1,
        unit="frames",
    )
    matcher: str = option(
        "auto",
        "Matching",
        "What finds the same points in the plate and the capture",
        choices=(
            ("auto", "Automatic", "MASt3R where its weights are installed, else Classic"),
            ("classic", "Classic", "SIFT features: no weights, any computer, similar views and light"),
            ("mast3r", "MASt3R", "A network of 2.8 GB: far apart views, no commercial use"),
        ),
    )
    zoom: bool = option(
        False, "Zoom", "The focal length changes within the plate: find it for each frame, where it is not known"
    )
    compare: int = option(
        5,
        "Compare With",
        "How many frames of the capture each frame of the plate is matched with",
        minimum=1,
        maximum=50,
        unit="frames",
        advanced=True,
    )
    max_error_px: float = option(
        0.0,
        "Largest Error",
        "How far a point may be off on the plate and still count; 0 takes 0.6 % of the picture's diagonal",
        minimum=0.0,
        maximum=100.0,
        unit="px",
        advanced=True,
    )
    match_confidence: float = option(
        1.001,
        "Min Match",
        "MASt3R's matches below this confidence are not used",
        minimum=0.0,
        maximum=100.0,
        advanced=True,
    )
    precision: str = precision_option()
