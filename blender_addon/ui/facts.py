"""What is known of a scene's clip: at once by Blender's own decoder, then exactly by the backend's."""

# Annotations must stay objects here: Blender reads the properties from them.
import math
from fractions import Fraction
from pathlib import Path

import bpy

from ..wire.facts import ClipFacts
from .text import duration, rate

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mxf"}
IMAGES_RATE = Fraction(24)  # what the backend takes for images, which have no clock


def look(path: Path) -> ClipFacts | None:
    """A clip as Blender's decoder sees it, not counted; None when it sees nothing.

    `path` is a video, an image of a numbered sequence, or a folder of images.
    """
    images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else []
    first = images[0] if images else path
    if not first.is_file():
        return None
    try:
        clip = bpy.data.movieclips.load(str(first))
    except RuntimeError:
        return None
    try:
        width, height = clip.size
        if clip.frame_duration < 1 or not width:  # Blender invents a size for what it cannot read
            return None
        is_video = clip.source == "MOVIE"
        known = is_video and math.isfinite(clip.fps) and clip.fps > 0
        return ClipFacts(
            kind="video" if is_video else "images",
            width=width,
            height=height,
            fps=Fraction(clip.fps).limit_denominator(1001) if known else IMAGES_RATE,
            frames=len(images) or clip.frame_duration,
            rotation=0,
            codec="",
            variable_frame_rate=False,
            counted=False,
            audio=False,
        )
    finally:
        bpy.data.movieclips.remove(clip)


class KINORA_PG_facts(bpy.types.PropertyGroup):
    """The facts of a clip, kept in the .blend; `of` is the clip's path, empty while nothing is known."""

    of: bpy.props.StringProperty()
    kind: bpy.props.StringProperty()
    width: bpy.props.IntProperty()
    height: bpy.props.IntProperty()
    fps_num: bpy.props.IntProperty(default=1)
    fps_den: bpy.props.IntProperty(default=1)
    frames: bpy.props.IntProperty()
    rotation: bpy.props.IntProperty()
    codec: bpy.props.StringProperty()
    variable_frame_rate: bpy.props.BoolProperty()
    counted: bpy.props.BoolProperty()
    audio: bpy.props.BoolProperty()
    warnings: bpy.props.StringProperty()  # a line each
    problem: bpy.props.StringProperty()  # why the backend cannot read it

    def show(self, path: Path, facts: ClipFacts | None) -> None:
        """Keep what is known of the clip at `path`."""
        self.of, self.problem = str(path) if facts else "", ""
        if facts is None:
            return
        limit = Fraction(facts.fps).limit_denominator(1001)
        values = {**facts.to_json(), "fps_num": limit.numerator, "fps_den": limit.denominator}
        for name, value in values.items():
            setattr(self, name, "\n".join(value) if name == "warnings" else value)

    def read(self) -> ClipFacts | None:
        """What is known, or None."""
        if not self.of:
            return None
        names = (p.identifier for p in self.bl_rna.properties)
        names = (n for n in names if n not in ("rna_type", "name", "of", "problem"))
        values = {name: getattr(self, name) for name in names}
        return ClipFacts.from_json({**values, "warnings": [w for w in self.warnings.split("\n") if w]})


def lines(facts: ClipFacts) -> list[str]:
    """A clip in a few short lines."""
    seconds = float(facts.frames / facts.fps)
    size = f"{facts.width} × {facts.height}" + (f", turned {facts.rotation}°" if facts.rotation else "")
    length = f"{facts.frames} frames" + (f", {duration(seconds, exact=True)}" if facts.kind == "video" else "")
    clock = f"{rate(facts.fps)} fps" + (" on average" if facts.variable_frame_rate else "")
    if facts.kind == "images":
        return [size, length]
    return [size, f"{clock}, {facts.codec}" if facts.codec else clock, length]


def used_frames(facts: ClipFacts, first: int, last: int, step: int) -> int:
    """How many frames of the clip a range takes; `last` -1 is the end."""
    end = facts.frames if last < 0 else min(last + 1, facts.frames)
    return len(range(first, end, step))


def register() -> None:
    bpy.utils.register_class(KINORA_PG_facts)


def unregister() -> None:
    bpy.utils.unregister_class(KINORA_PG_facts)
