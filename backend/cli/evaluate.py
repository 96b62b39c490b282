"""`evaluate`: a capture against the truth of its clip, or an engine on a benchmark."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..run import Progress, Run
from ..wire import Capture, JobSettings, PlateMap, UserError, flush, read_capture
from .options import settings_of
from .reconstruct import display, in_worker


def evaluate(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Compare, and print the table; the exit code."""
    if options.suite:
        return evaluate_suite(options, worker_command)
    from ..evaluate import main_evaluate

    names = ("poses", "depth", "masks", "depth_scale", "max_depth")
    print(main_evaluate(options.capture, options.truth, **{name: getattr(options, name) for name in names}))
    return 0


def evaluate_suite(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Measure the sequences of a benchmark, print the table and write the figures; 1 when a sequence failed."""
    from ..engines import load_engine
    from ..evaluation.benchmarks import BENCHMARKS, chosen_takes
    from ..evaluation.measures import (
        Measured,
        measure_pose,
        measure_reconstruction,
        measure_single_depth,
        measure_video_depth,
    )
    from ..evaluation.suites import TABLES, Result, measure_all, papers_table

    benchmark = BENCHMARKS[options.benchmark]
    names = tuple(filter(None, options.sequences.split(",")))
    takes = chosen_takes(options.folder, options.benchmark, options.suite, names, options.every, options.most)
    settings = settings_of(options) if options.engine else None
    if settings:
        load_engine(settings.engine).check(settings)
    elif options.suite == "mono-depth":
        raise UserError("Depth of single pictures needs a network", "choose an --engine")

    def of_captures(measure: Callable[[Any, Capture], Measured]) -> Callable[[Any], Measured]:
        def measured(take: Any) -> Measured:
            capture = _capture(take, settings, options, worker_command)
            made_by = {"engine": asdict(capture.engine), "settings": capture.settings}
            return replace(measure(take, capture), made_by=made_by)

        return measured

    def of_singles(take: Any) -> Measured:
        found = measure_single_depth(take, _singles(take, settings, options), benchmark.max_depth)
        return replace(found, made_by={"settings": settings.to_json()})

    measures: dict[str, Callable[[Any], Measured]] = {
        "mono-depth": of_singles,
        "video-depth": of_captures(lambda take, capture: measure_video_depth(take, capture, benchmark.max_depth)),
        "pose": of_captures(measure_pose),
        "reconstruction": of_captures(measure_reconstruction),
    }
    about = {
        "folder": str(options.folder.absolute()),
        "every": options.every or benchmark.suites[options.suite].every,
    }
    rows = measure_all(takes, measures[options.suite], lambda text: print(text, file=sys.stderr, flush=True))
    result = Result(TABLES[options.suite], benchmark.title, rows, about)
    print(result.table())
    path = options.out / f"{options.suite}-{options.benchmark}.json"
    _write(path, result.to_json())
    together = _results_in(options.out, options.suite)
    if len(together) > 1:
        print(f"\n{papers_table(TABLES[options.suite], together)}\n")
    print(f"All figures are in {path}")
    return 1 if result.failed else 0


def _capture(
    take: Any, settings: JobSettings | None, options: argparse.Namespace, worker_command: Sequence[str]
) -> Capture:
    """The capture of a take in the folder of captures: the one that is there, or a new one."""
    out = options.out.absolute() / take.name
    if (out / "capture.json").is_file() and not (settings and options.replace):
        return read_capture(out)
    if settings is None:
        raise UserError(f"There is no capture in {out}", "make one, or choose an --engine")
    from ..evaluation.measures import stand_in_name

    with tempfile.TemporaryDirectory(prefix="kinora-") as folder:
        for number, frame in take.numbered.items():
            _stand_in(frame.image.absolute(), Path(folder) / stand_in_name(number, frame.image))
        given = {"clip": Path(folder), "out": out, "masks": None, "poses": None, "intrinsics": None}
        job = argparse.Namespace(**vars(options) | given)
        outcome, log = in_worker(job, settings, worker_command)
    if outcome.state == "cancelled":
        print("Cancelled; captures that are whole are kept, and the same command goes on", file=sys.stderr)
        raise KeyboardInterrupt
    if outcome.state == "failed":
        raise UserError(outcome.message, f"see {log}" if outcome.bug else outcome.hint)
    return read_capture(out)


def _singles(take: Any, settings: JobSettings, options: argparse.Namespace) -> Iterator[tuple[np.ndarray, PlateMap]]:
    """Depth of each picture of a take by itself; see `single_depths`."""
    from ..singles import single_depths

    with display() as show:

        def report(progress: Progress) -> None:
            show({"t": "progress", **vars(progress)})

        stage = "Looking at pictures"
        run = Run(report=report, device=options.device, plan=((stage, 1.0),))
        with run.stage(stage):
            yield from single_depths([frame.image for frame in take.frames], settings, run)


def _results_in(folder: Path, suite: str) -> list[dict[str, Any]]:
    """What was written of a suite's benchmarks to the folder of captures."""
    from ..evaluation.benchmarks import BENCHMARKS

    files = [folder / f"{suite}-{benchmark}.json" for benchmark in BENCHMARKS]
    try:
        return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    except ValueError as error:
        raise UserError(f"A file of figures in {folder} is damaged ({error})", "delete it") from error


def _stand_in(image: Path, path: Path) -> None:
    """An image under another name: a link, or a copy where there are no links."""
    try:
        os.symlink(image, path)
    except OSError:
        shutil.copyfile(image, path)


def _write(path: Path, figures: dict[str, Any]) -> None:
    """Write JSON that appears whole or not at all."""
    beside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        flush(beside)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(
            f"The figures could not be written to {path} ({error.strerror})", "choose another --out"
        ) from error
