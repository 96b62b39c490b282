"""The worker: runs one job, told on standard input, and reports in JSON lines on standard output.

The first line of input is the job, later ones are commands; when the input ends the parent has died, and the worker
with it, and with the worker all that it started (belongings.py). A heartbeat tells that it lives. Output of libraries
goes to standard error, which is the job's log.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import hashlib
import importlib
import json
import logging
import os
import re
import shutil
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..ladder import Ladder, whose_memory
from ..run import Progress, Run
from ..sharing import Sharing
from ..stage_memory import StageMemory
from ..wire import Cancelled, JobSettings, UserError, bundle, messages
from . import sandbox
from .belongings import start_guard
from .endings import LESS_MEMORY, READING
from .live import LiveFolder
from .vitals import PICTURE_MOST_S, Heart, taken

#: A worker on the artist's own machine leaves the processor to Blender's window when both want it.
NICENESS = 10
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Channel:
    """The way to the parent: a private copy of standard output, so that no library's print can spoil it."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._file: IO[bytes] = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, kind: str, **fields: Any) -> None:
        """One message to the parent."""
        with self._lock:
            self._file.write(json.dumps({"t": kind, **fields}).encode() + b"\n")
            self._file.flush()


class ChannelHandler(logging.Handler):
    """Sends our own log lines, and everybody's warnings, to the parent as well."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.startswith("backend.") and record.name != "backend.run"  # stages are events already
        if (record.levelno >= logging.WARNING or ours) and not hasattr(record, "told"):  # Run.retry tells by itself
            level = "warning" if record.levelno >= logging.WARNING else "info"
            self._channel.send("log", level=level, text=record.getMessage()[:4000])


def main(arguments: list[str] | None = None) -> int:
    """Run the job that standard input tells. `--pipeline` names the module whose `reconstruct` does it."""
    parser = argparse.ArgumentParser(prog="backend.server.worker")
    parser.add_argument("--pipeline", default="backend.pipeline")
    options = parser.parse_args(arguments)
    channel = Channel()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    faulthandler.enable()
    sandbox.from_the_start()
    start_guard()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger().addHandler(ChannelHandler(channel))
    spec = json.loads(sys.stdin.buffer.readline() or b"null")
    if spec is None:
        return 1
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(cancelled,), daemon=True).start()
    channel.send("outcome", **_outcome(options.pipeline, spec, channel, cancelled))
    return 0


def _listen(cancelled: threading.Event) -> None:
    for line in iter(sys.stdin.buffer.readline, b""):
        if json.loads(line).get("cancel"):
            cancelled.set()
    os._exit(1)  # the parent died; nobody is left to report to


def _outcome(pipeline: str, spec: dict[str, Any], channel: Channel, cancelled: threading.Event) -> dict[str, Any]:
    """Do the job; how it ended, as the fields of process.Outcome."""
    memory = StageMemory(Path(spec["cache"])) if spec.get("cache") else None
    run = Run(is_cancelled=cancelled.is_set, device=spec.get("device", "auto"), memory=memory)
    run.ladder = Ladder(memory.folder / "ladder.json") if memory else None
    run.retried = lambda text: channel.send("retry", text=text[:4000])
    run.decoding = sandbox.decoding
    if spec.get("live"):
        run.show_frame = LiveFolder(Path(spec["live"]), lambda n, frame: channel.send("live", n=n, frame=frame)).show
    if memory and spec.get("sharing"):
        run.sharing = Sharing(**spec["sharing"], ask=lambda: channel.send("help"))
    heart = Heart(READING, partial(_beat, channel), partial(_stuck, channel, run))

    def report(progress: Progress) -> None:
        heart.report(progress)
        channel.send("progress", **vars(progress))

    run.report = report
    try:
        told = {"state": "done", "files": _reconstruct(pipeline, spec, run)}
    except Exception as error:
        told = _failure(error, spec["log"])
    return {**told, "report": taken(run)}


def _beat(channel: Channel, memory_bytes: int, memory_free: int) -> None:
    channel.send("beat", memory_bytes=memory_bytes, memory_free=memory_free)


def _stuck(channel: Channel, run: Run) -> None:
    """End a worker whose decoder will not come back: nothing else stops one."""
    message = f"One picture of the clip took longer than {PICTURE_MOST_S:.0f} s to read"
    hint = "re-encode it as H.264 in an .mp4"
    channel.send("outcome", state="failed", message=message, hint=hint, report=taken(run))
    os._exit(1)


def _failure(error: Exception, log_file: str) -> dict[str, Any]:
    """What an exception means for the user, as the fields of process.Outcome."""
    if isinstance(error, Cancelled):
        return {"state": "cancelled"}
    traceback.print_exception(error)
    if _is_full_disk(error):
        full = {"message": "The disk of the backend is full", "hint": "free some space on it"}
        return {"state": "failed", **full, "cause": "disk_full"}
    if isinstance(error, UserError):
        return {"state": "failed", "message": error.message, "hint": error.hint}
    if memory := whose_memory(error):
        told = {"state": "failed", "message": f"The memory of {memory} ran out", "hint": LESS_MEMORY}
        return {**told, "cause": "out_of_memory"}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return {"state": "failed", "message": "The backend may write no file as large", "hint": "raise its limit"}
    if _is_of_the_card(error):
        message = f"The graphics card failed ({str(error).partition(chr(10))[0]})"[:1000]
        hint = f"submit the job again; when it fails again, restart that machine or update its driver; see {log_file}"
        return {"state": "failed", "message": message, "hint": hint, "bug": True, "cause": "crash"}
    message = f"The reconstruction stopped on an error of Kinora ({type(error).__name__}: {error})"[:1000]
    return {"state": "failed", "message": message, "hint": f"this is a bug; see the log {log_file}", "bug": True}


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or the one that it tells in a sentence, says that the disk has no room left.

    NumPy has an OSError without a number for an array that did not go out whole ("9 requested and 5 written"): that is
    a full disk, unless there is a limit on the size of files.
    """
    if isinstance(error, UserError):
        return _is_full_disk(error.__cause__)
    if not isinstance(error, OSError):
        return False
    short = error.errno is None and re.search(r"\d+ requested and \d+ written", str(error)) is not None
    return error.errno in DISK_FULL or (short and not _files_are_limited())


def _files_are_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def _is_of_the_card(error: Exception) -> bool:
    """Whether the card or its driver failed: the process cannot go on, another one may."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "AcceleratorError" in names or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def _reconstruct(pipeline: str, spec: dict[str, Any], run: Run) -> list[dict]:
    """Run the pipeline; the capture's files with their sizes."""
    settings = JobSettings.from_json(spec["settings"])
    run.work_dir = scratch = Path(spec["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    source = footage_path(spec["clip"], scratch / "clip")
    masks = footage_path(spec["masks"], scratch / "masks") if spec["masks"] else None
    if run.sharing is not None and run.sharing.helper is not None:
        importlib.import_module(pipeline).help_job(source, settings, run, masks=masks)
        return []
    out = Path(spec["out"])
    reconstruct = importlib.import_module(pipeline).reconstruct
    more = {name: Path(spec[name]) for name in ("poses", "intrinsics", "reference") if spec.get(name)}
    reconstruct(source, out, settings, run, masks=masks, replace_earlier=spec["replace"], **more)
    files = [
        {"name": p.relative_to(out).as_posix(), "size": p.stat().st_size, "sha256": _sha256(p)}
        for p in sorted(out.rglob("*"))
        if p.is_file()
    ]
    odd = [f["name"] for f in files if not messages.NAME.fullmatch(f["name"])]
    if odd:
        raise ValueError(f"the capture holds a file that the protocol cannot name: {odd[0]}")
    return files


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def footage_path(clip: dict[str, Any], folder: Path) -> Path:
    """Where the footage can be read: its own path, or `folder`, into which an upload is placed under its name."""
    if "path" in clip:
        return Path(clip["path"])
    upload = Path(clip["upload"])
    folder.mkdir(parents=True)
    if clip["kind"] != "file":
        images = bundle.unpack(upload, folder)
        return images[0] if clip["kind"] == "sequence" else folder
    place = folder / clip["name"]
    try:
        os.link(upload, place)
    except OSError:  # a file system without links
        shutil.copyfile(upload, place)
    return place


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # at once: no library's exit hook can hold up a job that has had its last word
