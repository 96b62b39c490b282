"""Which capture an import is of: facts that another capture, or the same one made again, does not share."""

from __future__ import annotations

import hashlib
import json

import bpy

from ..wire.capture import Capture, metadata

#: Where the root of an import keeps the clip's source, and the identity of the capture.
CLIP, IDENTITY = "kinora_clip", "kinora_identity"
#: Where the root keeps which job of which backend made the capture, as long as it shows that one.
JOB = "kinora_job"


def identity(capture: Capture) -> str:
    """A digest of the frames, the engine and the cameras; the same wherever the folder stands and whatever is added."""
    facts = metadata(capture)
    text = json.dumps([facts[name] for name in ("clip", "processed", "engine", "cameras", "timings")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def remember_job(root: bpy.types.Object, job: str, backend: str) -> None:
    """Keep which job made the capture that an import shows, by the backend's id and its public key."""
    root[JOB] = {"job": job, "backend": backend, "identity": root.get(IDENTITY, "")}


def job_of(root: bpy.types.Object) -> tuple[str, str] | None:
    """(job, backend) that made what an import shows; None when that is not known."""
    kept = root.get(JOB)
    if kept is None or kept.get("identity") != root.get(IDENTITY):  # it shows another capture by now
        return None
    return str(kept.get("job", "")), str(kept.get("backend", ""))
