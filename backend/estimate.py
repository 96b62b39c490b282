"""Estimate: how long a job would take here and in how much memory, corrected by the jobs that were finished here."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from .clip import MAX_FRAMES
from .cost import Cost, Footage
from .footage import Sampling
from .machine import Machine
from .metric.cost import with_scale_cost
from .nets.manifest import Model, model_named, size_in_words
from .nets.receipt import Receipt, weights_folder
from .wire import Estimate, JobSettings, UserError, engine_info

log = logging.getLogger(__name__)

#: Newest finished jobs of an engine that are looked at.
LEARN_FROM = 20
#: A stage that takes less than this share of its cost was not done at all.
REUSED = 0.05
#: However many jobs agree, the next clip may differ by this factor.
LEAST_SPREAD = 1.3


def cost_of(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the chosen engine says, and what is done after it. Raises UserError for what the engine refuses."""
    cost = import_module(f".{settings.engine}.cost", __package__).cost(footage, settings, machine)
    return with_scale_cost(cost, footage, settings, machine)


def estimate(
    width: int, height: int, frames: int, fps: float, settings: JobSettings, machine: Machine, jobs: Path
) -> Estimate:
    """What a clip of that size, length and rate would take; `jobs` is the folder of the server's jobs.

    What would make the job fail is told as the estimate's problem, not raised.
    """
    sampling = Sampling.of(settings.clip)
    last = frames - 1 if sampling.last is None else min(sampling.last, frames - 1)
    used = range(sampling.first, last + 1, sampling.step)
    footage = Footage(width, height, tuple(i / fps for i in used))
    free = {"memory_free": machine.memory_free, "gpu_free": machine.gpu_free}
    try:
        _check_length(len(used), engine_info(settings.engine).least_frames)
        cost = cost_of(footage, settings, machine)
    except UserError as error:
        return Estimate(len(used), 0.0, 0.0, 0, **free, problem=error.message, hint=error.hint)
    ratios = list(learned(settings.engine, machine, jobs))
    seconds, spread = cost.seconds, cost.spread
    if ratios:
        seconds *= statistics.median(ratios)
        spread = max(LEAST_SPREAD, spread ** (1 / (1 + len(ratios))))
    missing = _missing(cost.weights)
    problem, hint = _no_weights(missing) if missing else _no_room(cost, machine)
    return Estimate(
        frames=len(used),
        seconds_low=seconds / spread,
        seconds_high=seconds * spread,
        memory_bytes=cost.memory_bytes,
        gpu_bytes=cost.gpu_bytes,
        learned=len(ratios),
        problem=problem,
        hint=hint,
        weights=tuple(model.name for model in missing),
        **free,
    )


def learned(engine: str, machine: Machine, jobs: Path) -> Iterator[float]:
    """Time that the newest finished jobs of an engine took, over what their cost says: a number for each."""
    captures = sorted(jobs.glob("*/capture/capture.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    count = 0
    for path in captures:
        if count == LEARN_FROM:
            return
        try:
            capture = json.loads(path.read_text(encoding="utf-8"))
            if capture["engine"]["name"] != engine:
                continue
            clip = capture["clip"]
            footage = Footage(*clip["plate_size"], tuple(clip["timestamps"]))
            expected = cost_of(footage, JobSettings.from_json(capture["settings"]), machine)
            ratio = ratio_of({row["stage"]: row["seconds"] for row in capture["timings"]}, expected)
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            log.info("nothing to learn from %s: %s", path, error)
            continue
        if ratio is not None:
            count += 1
            yield ratio


def ratio_of(taken: Mapping[str, float], expected: Cost) -> float | None:
    """Time that a job's stages took over what they cost; None where too little was done to tell.

    A stage whose result an earlier job had left takes next to nothing and says nothing of the machine.
    """
    done = {stage: s for stage, s in expected.stages.items() if taken.get(stage, 0.0) > REUSED * s}
    if sum(done.values()) < 0.5 * expected.seconds:
        return None
    return sum(taken[stage] for stage in done) / sum(done.values())


def _check_length(frames: int, least: int) -> None:
    if frames < least:
        raise UserError(f"The range holds {frames} frame{'s' * (frames != 1)}; at least {least} are needed")
    if frames > MAX_FRAMES:
        raise UserError(f"{frames} frames are more than the {MAX_FRAMES} of one job", "raise Step, or use a part")


def _missing(names: Iterable[str]) -> list[Model]:
    """The models that are not on this machine."""
    receipt = Receipt(weights_folder())
    return [model for model in map(model_named, names) if receipt.installed(model) is None]


def _no_weights(missing: list[Model]) -> tuple[str, str]:
    """What to say of weights that are missing, and what to do."""
    told = " and ".join(f"{m.title} ({size_in_words(m.size)})" for m in missing)
    command = f"python -m backend weights get {' '.join(m.name for m in missing)}"
    return (
        f"The weights of {told} are not on the backend's computer",
        f"get them in the preferences, or there by: {command}",
    )


def _no_room(cost: Cost, machine: Machine) -> tuple[str, str]:
    """Why the job would not fit into the machine, and what to do; two empty texts when it would."""
    less = "lower Resolution, or use fewer frames"
    if cost.gpu_bytes is not None and machine.gpu_free is not None and cost.gpu_bytes > machine.gpu_free:
        return f"It needs {_gb(cost.gpu_bytes)} of the graphics card, which has {_gb(machine.gpu_free)} free", less
    if cost.memory_bytes > machine.memory_free:
        return f"It needs {_gb(cost.memory_bytes)} of memory, and {_gb(machine.memory_free)} are free", less
    return "", ""


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
