"""Requests that move data: footage to the server, results back."""

from __future__ import annotations

import functools
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..wire import UserError, bundle, compact, framing, messages
from .answering import Fields, Reply, Server, Session, page
from .job_folder import CAPTURE
from .private import open_plain
from .refusal import Refusal

COMPACT = "compact"  # in a job's folder: its result as one file, and a line about that, for each codec asked for
PACKING_S = 3600.0
KNOWN_S = 2.0  # for so long what a job's result consists of is not looked up again


@dataclass(frozen=True)
class _Result:
    """What can be fetched of a job: where it lies and its files, by name."""

    folder: Path
    files: dict[str, dict[str, Any]]
    paths: dict[str, Path]
    known_at: float


class TransferRequests:
    """One method for each request, named as it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._results: dict[tuple[str, str, str], _Result] = {}  # by owner, job and encoding

    def upload_open(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        have, whole = self._server.uploads.open(session.owner, header["sha256"], header["size"])
        return {"have": have, "whole": whole}

    def upload_chunk(self, session: Session, header: Fields, frames: list[bytes]) -> Fields:
        # Nothing is damaged on the way, since CURVE authenticates it; a client may say what it meant to send.
        too_long = any(len(frame) > framing.CHUNK for frame in frames)
        if too_long or ("crc" in header and functools.reduce(_crc, frames, 0) != header["crc"]):
            raise Refusal("bad_chunk", "A chunk of the upload is damaged")
        return {"have": self._server.uploads.add(session.owner, header["sha256"], header["off"], frames)}

    def footage(self, session: Session, header: dict, prefix: str, kind: str, name: str) -> Fields:
        """Where the worker finds the footage: its path on the same host, or the upload."""
        path = header.get(f"{prefix}path")
        if path is None:
            upload = self._server.uploads.path(session.owner, header[f"{prefix}sha256"])
            if upload is None:
                raise Refusal("no_upload", "The clip has not been uploaded", "send it again")
            return {"upload": str(upload), "kind": kind, "name": name}
        if not session.same_host:
            raise Refusal("not_same_host", "Paths are only taken from a client on the same machine")
        if not _is_there(Path(path), kind, header.get(f"{prefix}size", 0), header.get(f"{prefix}sample", "")):
            raise Refusal(
                "no_such_file", f"The backend does not find {path} as described", "check the path of the clip"
            )
        return {"path": path}

    def result_index(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        result = self._result(session, header, anew=True)
        if result is None:
            return {"ready": False, "files": [], "total": 0}
        exact = header.get("encoding", "exact") == "exact"
        path = {"path": str(result.folder)} if session.same_host and exact else {}
        files = list(result.files.values())
        return {"ready": True, "files": page(files[header["first"] :]), "total": len(files), **path}

    def get(self, session: Session, header: Fields, _: list[bytes]) -> Reply:
        name, offset = header["name"], header["off"]
        result = self._result(session, header)
        row = result.files.get(name) if result is not None else None
        if row is None or not messages.NAME.fullmatch(name):
            raise Refusal("no_such_file", f"The result has no file {name}")
        if offset > row["size"]:
            raise Refusal("bad_offset", f"{name} has {row['size']} bytes")
        try:
            with open_plain(result.paths.get(name, result.folder / name)) as file:
                file.seek(offset)
                frames = [file.read(min(framing.PIECE, left)) for left in range(header["n"], 0, -framing.PIECE)]
        except FileNotFoundError as error:
            raise Refusal("no_such_file", f"The result has no file {name} any more", "send the clip again") from error
        return {"off": offset, "size": row["size"]}, [frames[0], *filter(None, frames[1:])]

    def _result(self, session: Session, header: Fields, anew: bool = False) -> _Result | None:
        """What the job has to be fetched, None while that is being made. Raises Refusal."""
        encoding = header.get("encoding", "exact")
        key, now = (session.owner, header["job"], encoding), time.monotonic()
        known = self._results.get(key)
        if known is not None and now - known.known_at < KNOWN_S and not anew:
            return known
        self._results = {k: r for k, r in self._results.items() if now - r.known_at < KNOWN_S}
        job = self._server.done(session, header)
        folder = self._server.scheduler.folder(job.id)
        if encoding == "exact":
            result = _Result(folder / CAPTURE, {row["name"]: row for row in job.files}, {}, now)
        else:
            row = self._packed(folder, encoding.rpartition("-")[2])
            if row is None:
                return None
            result = _Result(folder / CAPTURE, {row["name"]: row}, {row["name"]: folder / COMPACT / row["path"]}, now)
            del row["path"]
        self._results[key] = result
        return result

    def _packed(self, folder: Path, codec: str) -> dict[str, Any] | None:
        """Name, size and hash of the result as one file, which a child makes when it is not there yet."""
        about = folder / COMPACT / f"{codec}.json"
        if not about.is_file():
            question = {"capture": str(folder / CAPTURE), "folder": str(about.parent), "codec": codec}
            told = self._server.asides.ask("compact", question, timeout_s=PACKING_S)
            if told is None:
                return None
            if "answer" not in told:
                raise Refusal("no_answer", told["message"], told["hint"])
        try:
            return {"name": compact.FILE_NAME, **json.loads(about.read_text(encoding="utf-8"))}
        except (OSError, ValueError) as error:
            raise Refusal("no_answer", "The packed result is gone", "fetch it as it is") from error


def _is_there(path: Path, kind: str, size: int, sample: str) -> bool:
    """Whether this machine has, at that path, what the client has there."""
    try:
        if not path.is_absolute() or not (path.is_dir() if kind == "folder" else path.is_file()):
            return False
        return (kind != "file" or path.stat().st_size == size) and bundle.sample(path) == sample
    except (OSError, ValueError, UserError):
        return False


def _crc(crc: int, frame: bytes) -> int:
    return zlib.crc32(frame, crc)


def caps() -> Sequence[str]:
    """What this server can do beyond the version of the protocol, for its hello."""
    known = [name for name in messages.ENCODINGS if name == "exact" or name.rpartition("-")[2] in compact.codecs()]
    return [messages.FRAMES, *known]
