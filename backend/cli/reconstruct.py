"""`reconstruct`: one job without a server, in a worker process all the same, so that Ctrl-C can always stop it."""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..server.process import Outcome, WorkerProcess
from ..wire import Capture, JobSettings, UserError, paths, read_capture
from ..wire import capture as capture_format
from .options import settings_of

INTERRUPTED = 130


def reconstruct(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Reconstruct a clip into a folder; the exit code."""
    return carry_out(options, settings_of(options), worker_command)


def carry_out(
    options: argparse.Namespace, settings: JobSettings, worker_command: Sequence[str], reference: Path | None = None
) -> int:
    """Do one job in a worker, and print what became of it; the exit code. `reference` is a capture that it needs."""
    began = time.monotonic()
    outcome, log = in_worker(options, settings, worker_command, reference)
    if outcome.state == "cancelled":
        print("Cancelled; nothing was left behind", file=sys.stderr)
        return INTERRUPTED
    if outcome.state == "failed":
        if outcome.bug:
            print(log.read_text(encoding="utf-8", errors="replace")[-8000:], file=sys.stderr)
        print(UserError(outcome.message, outcome.hint), file=sys.stderr)
        return 1
    print(summary(read_capture(options.out), time.monotonic() - began))
    return 0


def in_worker(
    options: argparse.Namespace, settings: JobSettings, worker_command: Sequence[str], reference: Path | None = None
) -> tuple[Outcome, Path]:
    """Do one job in a worker and show its progress: how it ended, and its log, which is kept if that was a bug."""
    out = options.out.absolute()
    capture_format.check_output_folder(out, replace=options.replace)
    clip, masks, poses, intrinsics, reference = (
        path and path.absolute() for path in (options.clip, options.masks, options.poses, options.intrinsics, reference)
    )
    for path in filter(None, (clip, masks, poses, intrinsics, reference)):
        if not path.exists():
            raise UserError(f"There is no file {path}", "check the path")
    home = paths.make_private(paths.home())
    log_file = paths.logs_folder(home) / f"reconstruct-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    new_parents = [p for p in out.parents if not p.exists()]
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=home) as scratch, _Interrupts() as interrupts:
        spec = {
            "clip": {"path": str(clip)},
            "masks": {"path": str(masks)} if masks else None,
            "poses": str(poses) if poses else None,
            "intrinsics": str(intrinsics) if intrinsics else None,
            "reference": str(reference) if reference else None,
            "device": options.device,
            "settings": settings.to_json(),
            "out": str(out),
            "scratch": scratch,
            "log": str(log_file),
            "cache": str(paths.cache_folder(home)) if options.cache else None,
            "replace": options.replace,
        }
        worker = WorkerProcess(spec, log_file, command=worker_command)
        outcome = _follow(worker, interrupts)
    if outcome.state != "done":
        _tidy(out, worker.pid, new_parents)
    if not outcome.bug:
        log_file.unlink(missing_ok=True)
    return outcome, log_file


def summary(capture: Capture, seconds: float) -> str:
    """What a user wants to know of a new capture, one fact a line."""
    errors = [f.reprojection_error_px for f in capture.frames if f.reprojection_error_px is not None]
    measured = sum(f.registered for f in capture.frames)
    disagreement = capture.shot.solver_disagreement
    shown = sum(
        int(np.count_nonzero((d > 0) & (c >= capture.confidence_default)))
        for d, c in zip(capture.depth, capture.confidence)
    )
    rows = [
        ("frames registered", f"{measured} of {capture.frame_count} ({capture.shot.kind})"),
        ("reprojection error", f"{np.mean(errors):.2f} px on the plate" if errors else "not measured"),
        ("solver disagreement", "not measured" if disagreement is None else f"{100 * disagreement:.2f} % of the path"),
        ("points", f"{shown:,} above the default confidence"),
        ("seconds", f"{seconds:.1f}"),
        *(("warning", text) for text in capture.shot.warnings),
        ("folder", str(capture.folder)),
    ]
    return "\n".join(f"{name:<20} {value}" for name, value in rows)


class _Interrupts:
    """Counts Ctrl-C and SIGTERM instead of letting them strike at any line."""

    def __enter__(self) -> _Interrupts:
        self.count = 0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.count += 1


def _follow(worker: WorkerProcess, interrupts: _Interrupts) -> Outcome:
    """Show the worker's progress until it ends; an interrupt asks it to stop, a second one kills it."""
    with display() as show:
        while True:
            if interrupts.count:
                worker.cancel()
            if interrupts.count > 1:
                worker.kill()
            try:
                event = worker.events.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(event, Outcome):
                return event
            show(event)


@contextmanager
def display() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that shows progress and warnings: a bar on a terminal, a line for each stage anywhere else."""
    with tqdm(
        total=100,
        disable=not sys.stderr.isatty(),
        bar_format="{desc:<28} {percentage:3.0f} %|{bar}| {elapsed}{postfix}",
    ) as bar:
        began, stage = time.monotonic(), ""

        def show(event: dict[str, Any]) -> None:
            nonlocal stage
            if event["t"] == "log" and event["level"] == "warning":
                tqdm.write(f"warning: {event['text']}", file=sys.stderr)
            if event["t"] != "progress":
                return
            if event["stage"] != stage:
                stage = event["stage"]
                if bar.disable:
                    print(f"{time.monotonic() - began:7.1f} s  {stage}", file=sys.stderr, flush=True)
            eta_s = event["eta_s"]
            bar.set_description_str(stage, refresh=False)
            bar.set_postfix_str("" if eta_s is None else f"{eta_s:.0f} s left", refresh=False)
            bar.n = round(100 * event["fraction"], 1)
            bar.refresh()

        yield show


def _tidy(out: Path, worker: int, new_parents: list[Path]) -> None:
    """Remove what a killed worker left beside the output folder, and give an earlier capture its name back."""
    shutil.rmtree(out.with_name(f".{out.name}.partial-{worker}"), ignore_errors=True)
    retired = out.with_name(f".{out.name}.retired-{worker}")
    if retired.exists() and not out.exists():
        os.replace(retired, out)
    shutil.rmtree(retired, ignore_errors=True)
    for parent in new_parents:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
