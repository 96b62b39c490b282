"""Probe: what a clip is, counted from its packets; run in a child process, as decoders never run in the server."""

from __future__ import annotations

from pathlib import Path

from .footage import Sampling, open_footage
from .wire import ClipFacts, UserError

#: Longest that packets are counted; on a slow disk the container's word must do.
PATIENCE_S = 10.0


def probe(path: Path) -> ClipFacts:
    """The facts of the clip at `path`: a video, a folder of images, or one image of a numbered sequence.

    Raises UserError when it is none of them, or no frame of it can be decoded.
    """
    footage = open_footage(path)
    pictures = footage.pictures(Sampling())
    first = next(pictures, None)
    pictures.close()
    if first is None:
        raise UserError(f"No frame of {path.name} could be decoded", "re-encode it as H.264 in an .mp4")
    footage.seconds.clear()
    counted = footage.count(PATIENCE_S)
    if footage.audio:
        footage.warnings.append("The sound is not used")
    return ClipFacts(
        kind=footage.kind,
        width=footage.plate_size[0],
        height=footage.plate_size[1],
        fps=footage.fps,
        frames=footage.frame_estimate,
        rotation=footage.rotation,
        codec=footage.codec,
        variable_frame_rate=footage.variable_frame_rate,
        counted=counted,
        audio=footage.audio,
        warnings=tuple(w[:500] for w in footage.warnings[:16]),
    )
