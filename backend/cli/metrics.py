"""`metrics`: what the server counts, for people or in Prometheus' text form."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ..server.metrics import exposition
from .control import chosen
from .talk import Ask, talk

Row = Mapping[str, Any]


def metrics(options: argparse.Namespace) -> int:
    """Print the server's metrics. Raises UserError when none answers."""
    with talk(chosen(options.connection)) as ask:
        rows = fetched(ask)
    print(exposition(rows) if options.prometheus else in_words(rows), end="")
    return 0


def fetched(ask: Ask) -> list[Row]:
    """All samples, asked for page by page."""
    rows: list[Row] = []
    while True:
        reply = ask("metrics", first=len(rows))
        rows += reply["samples"]
        if not reply["samples"] or len(rows) >= reply["total"]:
            return rows


def in_words(rows: Sequence[Row]) -> str:
    """A line for each family, stages as a table."""
    value = {row["name"]: row["value"] for row in rows if not row["labels"]}
    up_s, cpu_s = value["kinora_up_seconds"], value["kinora_server_cpu_seconds_total"]
    received, sent = value["kinora_received_bytes_total"], value["kinora_sent_bytes_total"]
    lines = [
        ("Up", f"{_duration(up_s)}, {100 * cpu_s / max(up_s, 1e-9):.1f} % of a core"),
        ("Memory", _bytes(value.get("kinora_server_memory_bytes", 0))),
        ("Disk", f"{_bytes(value['kinora_disk_free_bytes'])} free"),
        ("Clients", f"{value['kinora_sessions']}, {value['kinora_keys_refused_total']} keys refused"),
        ("Jobs", _counts(rows, "kinora_jobs", "state")),
        ("Ended", _counts(rows, "kinora_jobs_ended_total", "state")),
        ("Failures", _counts(rows, "kinora_worker_failures_total", "cause")),
        ("Refused", _counts(rows, "kinora_requests_refused_total", "code")),
        ("Transfers", f"{_bytes(received)} in, {_bytes(sent)} out"),
    ]
    for row in rows:
        if row["name"].startswith("kinora_job_peak"):
            what = "Peak GPU" if "gpu" in row["name"] else "Peak memory"
            lines.append((what, f"{_bytes(row['value'])} by {row['labels']['engine']}"))
    return "".join(f"{name:<14}{words}\n" for name, words in lines) + _stages(rows)


def _stages(rows: Sequence[Row]) -> str:
    stages: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["name"].startswith("kinora_stage_seconds"):
            key = row["labels"].get("quantile") or row["name"].rpartition("_")[2]
            stages.setdefault(row["labels"]["stage"], {})[key] = row["value"]
    if not stages:
        return ""
    lines = [f"{'Stage':<32}{'runs':>6}{'mean':>10}{'p50':>10}{'p95':>10}\n"]
    for stage, told in stages.items():
        mean = told["sum"] / told["count"]
        times = "".join(f"{seconds:>8.2f} s" for seconds in (mean, told["0.5"], told["0.95"]))
        lines.append(f"{stage[:31]:<32}{told['count']:>6}{times}\n")
    return "".join(lines)


def _counts(rows: Sequence[Row], name: str, label: str) -> str:
    found = [f"{row['value']} {row['labels'][label]}" for row in rows if row["name"] == name and row["value"]]
    return ", ".join(found) or "none"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{seconds:.0f} s" if minutes == 0 else f"{minutes} min" if hours == 0 else f"{hours} h {minutes % 60} min"
