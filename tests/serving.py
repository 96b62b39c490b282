"""Servers, raw clients and clips for tests of the wire: real sockets and processes, a pipeline of our own."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from backend.server.broker import Broker
from backend.wire import Connection, JobSettings, framing, messages
from blender_addon.client import Client, Event, JobCancelled, JobDone, JobFailed
from blender_addon.link import open_dealer

PATIENCE_S = 90.0
SETTINGS = JobSettings().to_json()


def worker_of(pipeline: str) -> tuple[str, ...]:
    """The command of a worker whose jobs are made by the module of that name."""
    return sys.executable, "-m", "backend.server.worker", "--pipeline", pipeline


WORKER = worker_of("tests.pipeline_for_tests")


@contextmanager
def server(home: Path, worker: Sequence[str] = WORKER, **options: Any) -> Iterator[Broker]:
    """A server in a thread of this process; its workers are real processes."""
    broker = Broker(home, worker_command=worker, **options)
    thread = threading.Thread(target=broker.run)
    thread.start()
    wait_for(lambda: (home / "connection.json").is_file())
    try:
        yield broker
    finally:
        broker.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@contextmanager
def client(connection: Connection, **options: Any) -> Iterator[Client]:
    """A started client."""
    it = Client(connection, **options)
    it.start()
    try:
        yield it
    finally:
        it.stop()


class RawClient:
    """A client that says exactly what it is told, to see what the server makes of it."""

    def __init__(self, connection: Connection, hello: bool = True, **options: int) -> None:
        """`options` of the socket by their names in zmq."""
        self._context = zmq.Context()
        for name, value in options.items():
            setattr(self._context, name, value)
        self.socket = open_dealer(self._context, connection)
        self._number = 0
        if hello:
            self.hello = self.ask("hello", ver_min=2, ver_max=2, client="test", caps=[])

    def ask(self, kind: str, /, *frames: bytes, **fields: Any) -> dict[str, Any]:
        """The reply to a request, with its binary frames under '_'; pushes are passed over."""
        self._number += 1
        return self.say(framing.encode({"t": kind, "id": self._number, **fields}, frames))

    def say(self, parts: Sequence[bytes]) -> dict[str, Any]:
        """The reply to a message of any form."""
        self.socket.send_multipart(list(parts))
        while self.socket.poll(int(PATIENCE_S * 1000)):
            header, frames = framing.decode(self.socket.recv_multipart())
            if header["t"] != "progress":
                return {**header, "_": frames}
        raise AssertionError("no answer")

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clip_that(folder: Path, *words: str) -> Path:
    """A clip that makes the pipeline for tests do something; each call's content is new, so each is a new job."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{words[0]}-{time.monotonic_ns()}.mp4"
    path.write_text(f"{' '.join(words)}\n{path.name}\n", encoding="utf-8")
    return path


def send(raw: RawClient, clip: Path, **options: Any) -> dict[str, Any]:
    """Upload a clip and submit it, with further fields of `submit`."""
    data = clip.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    raw.ask("upload_open", sha256=sha256, size=len(data))
    raw.ask("upload_chunk", data, sha256=sha256, off=0, crc=zlib.crc32(data))
    wait_for(lambda: raw.ask("upload_open", sha256=sha256, size=len(data))["whole"])
    fields = {"settings": SETTINGS, **options}
    return raw.ask("submit", sha256=sha256, kind="file", name=clip.name, size=len(data), **fields)


def state_of(raw: RawClient, job: str) -> str:
    """The job's state."""
    return raw.ask("status", job=job)["state"]


def ends(raw: RawClient, job: str) -> list[dict[str, Any]]:
    """The job's events once it has ended."""
    wait_for(lambda: state_of(raw, job) in messages.ENDED)
    return raw.ask("events", job=job, since=0)["events"]


def collect(it: Client, until: Callable[[list[Event]], Any], patience_s: float = PATIENCE_S) -> list[Event]:
    """All events from now on, until they satisfy `until`."""
    events: list[Event] = []
    wait_for(lambda: events.extend(it.drain()) or until(events), patience_s, lambda: f"only {events} came")
    return events


def end_of(it: Client, ticket: str, patience_s: float = PATIENCE_S) -> Event:
    """The event that ends a job."""
    ends = (JobDone, JobFailed, JobCancelled)
    is_end = lambda event: isinstance(event, ends) and event.ticket == ticket  # noqa: E731
    events = collect(it, lambda events: any(map(is_end, events)), patience_s)
    return next(filter(is_end, events))


def reconstruct(it: Client, clip: Path, out: Path, settings: JobSettings | None = None, **options: Any) -> Event:
    """Submit and wait for the end."""
    return end_of(it, it.submit(clip, settings or JobSettings(), out, **options))


def wait_for(
    condition: Callable[[], Any], patience_s: float = PATIENCE_S, words: Callable[[], str] = lambda: "it never came"
) -> None:
    """Wait until the condition holds; AssertionError when it does not."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.02)
