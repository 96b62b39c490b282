"""Requests that a child process answers beside the jobs: what a clip is, what a job would take."""

from __future__ import annotations

from pathlib import Path

from ..wire import JobSettings
from .answering import Fields, Server, Session
from .refusal import Refusal


class AsideRequests:
    """One method for each request, named as it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def probe(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        if not session.same_host:
            raise Refusal("not_same_host", "Only a client on the same machine can ask about a file")
        path = Path(header["path"])
        if not path.is_absolute() or not path.exists():
            raise Refusal("no_such_file", f"{path} is not there", "choose the clip again")
        about = path.stat()
        facts = self._aside("probe", {"path": str(path), "size": about.st_size, "changed": about.st_mtime_ns})
        return {"ready": False} if facts is None else {"ready": True, "facts": facts}

    def estimate(self, _: Session, header: Fields, __: list[bytes]) -> Fields:
        settings = JobSettings.from_json(header["settings"]).to_json()
        size = {name: header[name] for name in ("width", "height", "frames", "fps")}
        found = self._aside("estimate", {**size, "settings": settings, "jobs": str(self._server.jobs_folder)})
        return {"ready": False} if found is None else {"ready": True, "estimate": found}

    def _aside(self, kind: str, question: Fields) -> Fields | None:
        """The answer of a child, None while it is at it. Raises Refusal when it has none."""
        told = self._server.asides.ask(kind, question)
        if told is not None and "answer" not in told:
            raise Refusal("no_answer", told["message"], told["hint"])
        return None if told is None else told["answer"]
