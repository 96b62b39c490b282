"""Which capture an import is of: facts that another capture, or the same one made again, does not share."""

from __future__ import annotations

import hashlib
import json

from ..wire.capture import Capture, metadata

#: Where the root of an import keeps the clip's source, and the identity of the capture.
CLIP, IDENTITY = "kinora_clip", "kinora_identity"


def identity(capture: Capture) -> str:
    """A digest of the frames, the engine and the cameras; the same wherever the folder stands and whatever is added."""
    facts = metadata(capture)
    text = json.dumps([facts[name] for name in ("clip", "processed", "engine", "cameras", "timings")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
