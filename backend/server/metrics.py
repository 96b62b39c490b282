"""Metrics: what the server counts of its work, as named samples; counts begin anew with each run of the server."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .process import Outcome

TIMES_KEPT = 256  # of each stage: what its quantiles are of
STAGES_MAX = 64  # engines and stages are few; whatever names them cannot make the server grow
NAME_MAX = 80
QUANTILES = (0.5, 0.95)

#: Sample -> (kind, what it is). The kinds are Prometheus'.
FAMILIES = {
    "kinora_up_seconds": ("gauge", "Seconds since the server started"),
    "kinora_server_cpu_seconds_total": ("counter", "Processor time of the server itself, without workers"),
    "kinora_server_memory_bytes": ("gauge", "Memory of the server itself, without workers"),
    "kinora_jobs": ("gauge", "Jobs in the server's store by state"),
    "kinora_disk_free_bytes": ("gauge", "Room on the disk of the data folder"),
    "kinora_sessions": ("gauge", "Clients that are connected"),
    "kinora_keys_refused_total": ("counter", "Connections that were refused because of their key"),
    "kinora_jobs_ended_total": ("counter", "Attempts at jobs that ended, by state"),
    "kinora_worker_failures_total": ("counter", "Attempts that failed by no fault of the job, by cause"),
    "kinora_stage_seconds": ("summary", "Time of each stage of the jobs that ran"),
    "kinora_job_peak_memory_bytes": ("gauge", "Most memory that a job of the engine took"),
    "kinora_job_peak_gpu_bytes": ("gauge", "Most memory of a graphics card that a job of the engine took"),
    "kinora_requests_total": ("counter", "Requests that were taken, by kind"),
    "kinora_requests_refused_total": ("counter", "Requests that were answered by an error, by its code"),
    "kinora_received_bytes_total": ("counter", "Bytes of footage that clients sent"),
    "kinora_sent_bytes_total": ("counter", "Bytes of results that clients fetched"),
}


@dataclass(frozen=True)
class Sample:
    """One number of a family, told apart from the others by its labels."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "labels": dict(self.labels), "value": self.value}


@dataclass
class _Times:
    count: int = 0
    total_s: float = 0.0
    newest_s: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES_KEPT))


class Metrics:
    """Counters of one run of the server; everything here is called from its loop."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._requests: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._stages: dict[str, _Times] = {}
        self._peaks: defaultdict[str, Counter[str]] = defaultdict(Counter)  # engine -> the largest of each
        self._received = self._sent = 0

    def request(self, kind: str, received: int, sent: int) -> None:
        """A request was answered; `received` and `sent` are the bytes of its and its reply's binary frames."""
        self._requests[kind] += 1
        self._received += received
        self._sent += sent

    def refused(self, code: str) -> None:
        """A request was answered by an error."""
        self._refused[code] += 1

    def ended(self, engine: str, outcome: Outcome) -> None:
        """A worker has had its last word, or was lost."""
        self._ended[outcome.state] += 1
        if outcome.cause:
            self._failures[outcome.cause] += 1
        report = outcome.report
        for stage, seconds in report.get("stages", []):
            name = str(stage)[:NAME_MAX]
            if name in self._stages or len(self._stages) < STAGES_MAX:
                times = self._stages.setdefault(name, _Times())
                times.count += 1
                times.total_s += float(seconds)
                times.newest_s.append(float(seconds))
        if engine[:NAME_MAX] in self._peaks or len(self._peaks) < STAGES_MAX:
            peaks = self._peaks[engine[:NAME_MAX]]
            for name in ("peak_memory_bytes", "peak_gpu_bytes"):
                peaks[name] = max(peaks[name], int(report.get(name) or 0))

    def samples(self, jobs: Mapping[str, int], now: Mapping[str, float]) -> list[Sample]:
        """Everything that is known: `jobs` are the store's, counted by state, `now` is what others know by its name."""
        return [
            Sample("kinora_up_seconds", round(time.monotonic() - self._started, 3)),
            Sample("kinora_server_cpu_seconds_total", round(time.process_time(), 3)),
            *([Sample("kinora_server_memory_bytes", memory)] if (memory := resident_bytes()) else []),
            *(Sample(name, value) for name, value in now.items()),
            *_labelled("kinora_jobs", "state", jobs),
            *_labelled("kinora_jobs_ended_total", "state", self._ended),
            *_labelled("kinora_worker_failures_total", "cause", self._failures),
            *self._of_stages(),
            *self._of_engines(),
            *_labelled("kinora_requests_total", "kind", self._requests),
            *_labelled("kinora_requests_refused_total", "code", self._refused),
            Sample("kinora_received_bytes_total", self._received),
            Sample("kinora_sent_bytes_total", self._sent),
        ]

    def _of_stages(self) -> Iterator[Sample]:
        for stage, times in self._stages.items():
            for q in QUANTILES:
                value = quantile(sorted(times.newest_s), q)
                yield Sample("kinora_stage_seconds", round(value, 4), {"stage": stage, "quantile": str(q)})
            yield Sample("kinora_stage_seconds_sum", round(times.total_s, 4), {"stage": stage})
            yield Sample("kinora_stage_seconds_count", times.count, {"stage": stage})

    def _of_engines(self) -> Iterator[Sample]:
        for engine, peaks in self._peaks.items():
            for name, value in peaks.items():
                if value:
                    yield Sample(f"kinora_job_{name}", value, {"engine": engine})


def quantile(ordered: list[float], q: float) -> float:
    """The q-quantile of values in ascending order, between neighbours in proportion."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def resident_bytes() -> int:
    """Memory of this process that is in use now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def exposition(rows: list[Mapping[str, Any]]) -> str:
    """Samples (as `to_json` gives them) in the text form that Prometheus reads."""
    lines: list[str] = []
    for name, (kind, words) in FAMILIES.items():
        names = (name, f"{name}_sum", f"{name}_count") if kind == "summary" else (name,)
        members = [row for row in rows if row["name"] in names]
        if members:
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
            lines += [f"{row['name']}{_braces(row['labels'])} {row['value']}" for row in members]
    return "".join(line + "\n" for line in lines)


def _labelled(name: str, label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [Sample(name, count, {label: key}) for key, count in sorted(counts.items())]


def _braces(labels: Mapping[str, str]) -> str:
    escaped = {k: v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for k, v in labels.items()}
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped.items()) + "}" if labels else ""
