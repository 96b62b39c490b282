"""Suites: the sequences of a benchmark measured one after the other, and the table that papers print of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..wire import UserError
from .measures import Measured


@dataclass(frozen=True)
class Column:
    """A figure in the table: its key, its heading in two lines, and how it is written."""

    key: str
    heading: tuple[str, str]
    form: str = ".3f"


@dataclass(frozen=True)
class Table:
    """What a suite's table is called and shows. `weighted`: the mean is by pixels, not by sequences."""

    title: str
    columns: tuple[Column, ...]
    weighted: bool = False


def _depth_columns(prefix: str, heading: str) -> tuple[Column, Column]:
    return (
        Column(f"{prefix}abs_rel", (heading, "Abs Rel"), ".4f"),
        Column(f"{prefix}delta_125", (heading, "< 1.25"), ".1%"),
    )


_SEEN = Column("seen", ("", "compared"), ".1%")
#: The table of each suite of benchmarks.py.
TABLES: dict[str, Table] = {
    "mono-depth": Table("Single-image depth", (_SEEN, *_depth_columns("", "median scale")), weighted=True),
    "video-depth": Table(
        "Video depth",
        (
            _SEEN,
            *_depth_columns("scale_", "scale"),
            *_depth_columns("scale_shift_", "scale & shift"),
            *_depth_columns("metric_", "metric"),
        ),
        weighted=True,
    ),
    "pose": Table(
        "Camera pose, after Sim(3)",
        (Column("ate", ("", "ATE")), Column("rpe", ("RPE", "trans")), Column("rpe_deg", ("RPE", "rot, deg"))),
    ),
    "reconstruction": Table(
        "3-D reconstruction, in metres",
        tuple(
            Column(key, (heading, kind))
            for name, heading in (("accuracy", "Acc"), ("completeness", "Comp"), ("normals", "NC"))
            for key, kind in ((name, "mean"), (f"{name}_median", "med"))
        ),
    ),
}


@dataclass(frozen=True)
class Row:
    """One sequence: how many frames the suite takes, and what was measured, or why it failed."""

    name: str
    frames: int = 0
    measured: Measured | None = None
    failed: str = ""


@dataclass(frozen=True)
class Result:
    """What a suite measured of a benchmark. `about` is what else is written down."""

    what: Table
    benchmark: str
    rows: tuple[Row, ...]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many sequences have no figures."""
        return sum(row.measured is None for row in self.rows)

    def mean(self, key: str) -> float:
        """Of the sequences that have figures; NaN when one of them does not have this one."""
        measured = [row.measured for row in self.rows if row.measured]
        if not measured:
            return float("nan")
        weights = [m.weight if self.what.weighted else 1.0 for m in measured]
        return float(np.average([m.figures[key] for m in measured], weights=weights))

    def table(self) -> str:
        """The table, a line a sequence, and the mean."""
        columns = self.what.columns
        heads = _first_of_each([c.heading[0] for c in columns]), [c.heading[1] for c in columns]
        cells = [["", "", *heads[0]], ["", "frames", *heads[1]]]
        for row in self.rows:
            if row.measured is None:
                cells.append([row.name, "failed"])
                continue
            count = f"{row.measured.frames}" + (f" of {row.frames}" if row.measured.frames < row.frames else "")
            cells.append([row.name, count, *(_written(row.measured.figures[c.key], c.form) for c in columns)])
        done = len(self.rows) - self.failed
        kind = "mean by pixels" if self.what.weighted else "mean"
        means = [_written(self.mean(c.key), c.form) for c in columns]
        cells.append([f"{kind}, {done} of {len(self.rows)}", "", *means])
        lines = [f"{self.what.title}, {self.benchmark}", *lined_up(cells)]
        if self.failed:
            lines.append(f"{self.failed} of {len(self.rows)} sequences failed, the mean is of the others alone:")
            lines += [f"  {row.name}: {row.failed}" for row in self.rows if row.measured is None]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All figures, those that the table leaves out too; what is not known is None."""
        keys = list(dict.fromkeys(key for row in self.rows if row.measured for key in row.measured.figures))
        return {
            "suite": self.what.title,
            "benchmark": self.benchmark,
            **self.about,
            "sequences": [
                {
                    "name": row.name,
                    "frames_taken": row.frames,
                    "failed": row.failed or None,
                    **({} if row.measured is None else _of_sequence(row.measured)),
                }
                for row in self.rows
            ],
            "failed": self.failed,
            "mean_of": len(self.rows) - self.failed,
            "mean_weighted_by": "pixels" if self.what.weighted else "sequences",
            "mean": {key: _known(self.mean(key)) for key in keys},
        }


def measure_all(
    takes: Mapping[str, Callable[[], Any]], measure: Callable[[Any], Measured], tell: Callable[[str], None]
) -> tuple[Row, ...]:
    """A row for each sequence; one that cannot be read or measured by a user's fault fails, and the others go on.

    `tell` gets a sentence before each.
    """
    rows = []
    for number, (name, read) in enumerate(takes.items()):
        tell(f"{name}, {number + 1} of {len(takes)}")
        frames = 0
        try:
            take = read()
            frames = len(take.frames)
            rows.append(Row(name, frames, measure(take)))
        except UserError as error:
            rows.append(Row(name, frames, failed=str(error)))
    return tuple(rows)


def papers_table(what: Table, results: Sequence[Mapping[str, Any]]) -> str:
    """A method as papers print it: its means on several benchmarks side by side, a line for each alignment of depth.

    `results` are what `Result.to_json` gives. Benchmarks of which sequences failed say of how many the means are.
    """
    shown = [column for column in what.columns if column is not _SEEN]
    lines = {c.heading[0] if what.weighted else "": [] for c in shown}
    for column in shown:
        lines[column.heading[0] if what.weighted else ""].append(column)
    heads = [c.heading[1] if what.weighted else " ".join(filter(None, c.heading)) for c in next(iter(lines.values()))]
    cells = [[""], ["mean"]]
    for result in results:
        count = f" ({result['mean_of']} of {len(result['sequences'])})" if result["failed"] else ""
        cells[0] += [result["benchmark"] + count, *[""] * (len(heads) - 1)]
        cells[1] += heads
    for label, columns in lines.items():
        means = (result["mean"].get(column.key) for result in results for column in columns)
        forms = [column.form for _ in results for column in columns]
        cells.append([label, *("-" if mean is None else format(mean, form) for mean, form in zip(means, forms))])
    return "\n".join([what.title, *lined_up(cells)])


def lined_up(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the first column to the left, the others to the right; rows may end early."""
    widths = [max(len(row[n]) for row in cells if n < len(row)) for n in range(max(map(len, cells)))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in cells
    ]


def _of_sequence(measured: Measured) -> dict[str, Any]:
    figures = {key: _known(value) for key, value in measured.figures.items()}
    return {"frames": measured.frames, "weight": measured.weight, "figures": figures, "made_by": measured.made_by}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _written(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"


def _first_of_each(headings: list[str]) -> list[str]:
    """Headings, of which those that repeat the one before are left out."""
    return [name if n == 0 or name != headings[n - 1] else "" for n, name in enumerate(headings)]
