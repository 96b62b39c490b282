"""Requests that move data: footage to the server, results back."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..wire import framing, messages
from .answering import Fields, Reply, Server, Session, page
from .refusal import Refusal
from .scheduler import CAPTURE


class TransferRequests:
    """One method for each request, named as it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def upload_open(self, _: Session, header: Fields, __: list[bytes]) -> Fields:
        return {"have": self._server.uploads.open(header["sha256"], header["size"])}

    def upload_chunk(self, _: Session, header: Fields, frames: list[bytes]) -> Fields:
        if len(frames[0]) > framing.CHUNK or zlib.crc32(frames[0]) != header["crc"]:
            raise Refusal("bad_chunk", "A chunk of the upload is damaged")
        return {"have": self._server.uploads.add(header["sha256"], header["off"], frames[0])}

    def footage(self, session: Session, header: dict, prefix: str, kind: str, name: str) -> Fields:
        """Where the worker finds the footage: its path on the same host, or the upload."""
        path, size = header.get(f"{prefix}path"), header.get(f"{prefix}size", 0)
        if path is None:
            upload = self._server.uploads.path(header[f"{prefix}sha256"])
            if upload is None:
                raise Refusal("no_upload", "The clip has not been uploaded", "send it again")
            return {"upload": str(upload), "kind": kind, "name": name}
        if not session.same_host:
            raise Refusal("not_same_host", "Paths are only taken from a client on the same machine")
        place = Path(path)
        if (
            not place.is_absolute()
            or not place.exists()
            or (place.is_file() and kind == "file" and place.stat().st_size != size)
        ):
            raise Refusal(
                "no_such_file", f"The backend does not find {path} as described", "check the path of the clip"
            )
        return {"path": path}

    def result_index(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.done(session, header)
        path = {"path": str(self._server.scheduler.folder(job.id) / CAPTURE)} if session.same_host else {}
        return {"files": page(job.files[header["first"] :]), "total": len(job.files), **path}

    def get(self, session: Session, header: Fields, _: list[bytes]) -> Reply:
        job, name, offset = self._server.done(session, header), header["name"], header["off"]
        size = next((f["size"] for f in job.files if f["name"] == name), None)
        if size is None or not messages.NAME.fullmatch(name):
            raise Refusal("no_such_file", f"The result has no file {name}")
        if offset > size:
            raise Refusal("bad_offset", f"{name} has {size} bytes")
        with open(self._server.scheduler.folder(job.id) / CAPTURE / name, "rb") as file:
            file.seek(offset)
            data = file.read(min(header["n"], framing.CHUNK))
        return {"off": offset, "size": size, "crc": zlib.crc32(data)}, [data]
