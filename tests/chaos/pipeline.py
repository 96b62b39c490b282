"""A pipeline for chaos: four remembered stages of a few hundred milliseconds, and a capture whose bytes are known.

The "clip" is JSON, and blanks as ballast: {"number", "stage_s", "ledger", "small", "trouble"}. The ledger is a file
that gets a line for each stage that begins to compute and for each that is kept, with the process's id. "small" makes a
capture of some kilobytes, for slow lines. "trouble" is what happens in the third stage: "crash", or "memory" for a
device that has room for three pieces of sixteen.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from backend.run import Run
from backend.wire import JobSettings, write_capture

from ..worlds import as_capture, room

#: Stage -> bytes of what it gives; the last one is more than a chunk.
STAGES = {"Reading": 20_000, "Matching": 50_000, "Solving": 5_000, "Shading": 1_200_000}


def reconstruct(
    source: Path,
    out: Path,
    settings: JobSettings,
    run: Run,
    *,
    masks: Path | None = None,
    replace_earlier: bool = False,
) -> Path:
    """A capture of the synthetic room with one more file a stage, each made from the clip and the stage before."""
    order = json.loads(source.read_bytes())
    run.plan = [(stage, 1.0) for stage in STAGES]
    results: dict[str, np.ndarray] = {}
    small = order["small"]
    before = np.frombuffer(b"%08d" % order["number"], np.uint8)
    for stage, size in STAGES.items():
        with run.stage(stage):
            compute = partial(_compute, order, run, stage, size // 1000 if small else size, before)
            before = run.remember(stage, {"before": before}, compute)
            _note(order, "kept", stage)
        results[stage] = before
    capture = as_capture(room(frames=1, width=4, height=3) if small else room(frames=2, width=32, height=24))
    capture = replace(capture, clip=replace(capture.clip, source=str(source)), settings=settings.to_json())

    def add(_, folder: Path) -> None:
        for stage, array in results.items():
            np.save(folder / f"{stage.lower()}.npy", array)

    return write_capture(capture, out, [add], replace=replace_earlier)


def write_clip(
    path: Path,
    number: int,
    ledger: Path | None = None,
    stage_s: float = 0.1,
    *,
    small: bool = False,
    ballast: int = 0,
    trouble: str = "",
) -> Path:
    """A clip for this pipeline; each number is other footage. `ballast` is in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = str(ledger) if ledger else None
    order = {"number": number, "stage_s": stage_s, "ledger": told, "small": small, "trouble": trouble}
    path.write_text(json.dumps(order) + ballast * " ", encoding="utf-8")
    return path


def differences(capture: Path, scratch: Path, number: int, clip: Path | str, *, small: bool = False) -> str:
    """In what a capture of this number's `clip` differs from one that is made here and now without a server.

    '' when every byte is right.
    """
    calm = write_clip(scratch / f"{number:04d}.mp4", number, stage_s=0.0, small=small)
    expected = reconstruct(calm, scratch / "capture", JobSettings(), Run(), replace_earlier=True)
    theirs, ours = ({p.relative_to(f).as_posix() for p in f.rglob("*")} for f in (capture, expected))
    if theirs != ours:
        return f"other files: {theirs ^ ours}"
    for name in sorted(ours - {"capture.json"}):
        if (capture / name).read_bytes() != (expected / name).read_bytes():
            return f"{name} differs"
    told, meant = (json.loads((f / "capture.json").read_text()) for f in (capture, expected))
    meant["clip"]["source"] = str(clip)
    return "" if told == meant else "capture.json differs"


def _compute(order: dict, run: Run, stage: str, size: int, before: np.ndarray) -> np.ndarray:
    """Bytes that follow from the stage and what it was made from, and from nothing else."""
    _note(order, "begin", stage)
    for _ in run.steps(10):
        time.sleep(order["stage_s"] / 10)
    if stage == "Solving":
        if order["trouble"] == "crash":
            ctypes.string_at(0)
        if order["trouble"] == "memory":
            _on_a_small_device(run)
    seed = hashlib.sha256(stage.encode() + before.tobytes()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big"))).integers(0, 256, size, dtype=np.uint8)


def _on_a_small_device(run: Run) -> None:
    """Work for the engines' own ladder of memory, on a device where more than three pieces at once are too many."""
    import torch

    from backend.nets.memory import Chunks

    def work(pieces) -> None:
        if len(pieces) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory (of a test)")

    assert list(Chunks(16, "cpu", "piece", run=run).over(range(16), work))[-1] == 16


def _note(order: dict, what: str, stage: str) -> None:
    """A line in the ledger, whole whatever happens to this process."""
    if order["ledger"]:
        line = f"{os.getpid()} {order['number']} {what} {stage}\n"
        descriptor = os.open(order["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)
