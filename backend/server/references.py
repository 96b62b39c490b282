"""References: the capture of an earlier job of the same client that a job works on, as localising a plate does."""

from __future__ import annotations

from ..wire import JobSettings, messages
from .answering import Server, Session
from .refusal import Refusal

GONE = (
    "The backend does not have that capture of yours any more",
    "reconstruct its clip on this backend again, then localise the plate",
)


def referred(server: Server, session: Session, settings: JobSettings) -> str:
    """Id of the finished job that the settings refer to; '' for settings that refer to none.

    Raises Refusal when there is no such job of the client with its whole capture on the disk.
    """
    reference = getattr(settings.engine_settings, "reference", None)
    if reference is None:
        return ""
    if not messages.JOB.fullmatch(reference):
        raise Refusal("bad_settings", "A plate is localised in a capture, and none is named", "choose a capture")
    job = server.store.find(reference, session.owner)
    if job is not None and job.state in ("queued", "running"):
        raise Refusal("not_done", "The capture that the plate belongs to is not done yet", "wait for it")
    if job is None or job.state != "done" or not server.scheduler.has_capture(job):
        raise Refusal("no_such_capture", *GONE)
    return job.id
