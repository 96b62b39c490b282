"""What an import may be asked for; the operator's properties and the tests are made from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from ..wire.settings import Settings, option


@dataclass(frozen=True)
class ImportOptions(Settings):
    """How a capture becomes a collection."""

    collection_name: str = option("", "Name", "Name of the collection; empty takes the name of the clip")
    existing: str = option(
        "new",
        "Existing",
        "What becomes of an earlier import of the same clip in this scene",
        choices=(
            ("new", "New", "Leave it alone and import beside it"),
            (
                "update",
                "Update",
                "Give it the new points, camera and pictures; its place, materials, settings and whatever hangs on it "
                "stay. Without an earlier import this is the same as New",
            ),
        ),
    )
    restore_deleted: bool = option(
        False, "Restore Deleted", "When updating, bring back the objects of the earlier import that were deleted"
    )
    start_frame: int = option(
        1, "Start Frame", "Scene frame of the first frame of the capture", minimum=0, maximum=1000000
    )
    set_scene: bool = option(
        True,
        "Set Up Scene",
        "Give the scene the frame rate, frame range, size and camera of the capture, show its plate and masks in the "
        "compositor, and look through the camera",
    )
    storage: str = option(
        "split",
        "Points",
        "How the points are kept",
        choices=(
            (
                "split",
                "Static and Moving",
                "What stands still once, merged from all frames, and only what moves frame by frame: far smaller, and "
                "the set stays when the camera turns away",
            ),
            ("frames", "Every Frame", "All points of each frame, exactly as that frame saw them"),
        ),
    )
    up_axis: str = option(
        "auto",
        "Up Axis",
        "How the root object turns the capture; it can be changed afterwards",
        choices=(
            ("auto", "Level", "Find the horizon from the cameras and the floor from the points"),
            ("none", "As Shot", "The first frame of the capture is level"),
        ),
    )
    min_confidence: float = option(
        -1.0,
        "Min Confidence",
        "Show points at least this certain; -1 takes what the capture recommends. It can be changed afterwards",
        minimum=-1.0,
    )
    point_size: float = option(
        1.5, "Point Size", "Width of a point in pixels of the capture, seen from its own camera", minimum=0.0
    )
    show_plate: bool = option(True, "Show Plate", "Show the plate behind the camera in the viewport")
    plate_path: str = option(
        "", "Plate", "The footage on this computer; empty looks for it where the capture says it is", advanced=True
    )
