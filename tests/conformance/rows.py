"""One comparison as one line, and arrays that know which of them were looked at."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.wire import UserError


@dataclass(frozen=True)
class Row:
    """`ok` None: nothing was compared, and `note` says why (absent, or not of our concern)."""

    name: str
    ok: bool | None
    deviation: float | None = None
    tolerance: float | None = None
    note: str = ""

    def __str__(self) -> str:
        state = {True: "ok", False: "FAIL", None: "-"}[self.ok]
        figures = [f"{'' if v is None else f'{v:.3g}':>10}" for v in (self.deviation, self.tolerance)]
        return f"{self.name:<58} {' '.join(figures)}  {state:<4} {self.note}".rstrip()


#: What checks one part of a folder: it yields rows, at least one of them, even if only to say that the part is absent.
Check = Callable[[Path], Iterable[Row]]


def near(name: str, ours: Any, theirs: Any, tolerance: float, relative: bool = False) -> Row:
    """Largest absolute difference; `relative`: of each element, divided by its size where that is above 1.

    Fails where shapes differ, where nothing is compared, or where other elements are finite than in theirs.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return Row(name, False, None, tolerance, f"shape {list(ours.shape)} instead of {list(theirs.shape)}")
    if not theirs.size:
        return Row(name, False, None, tolerance, "empty")
    finite = np.isfinite(theirs)
    if not np.array_equal(finite, np.isfinite(ours)) or not np.array_equal(ours[~finite], theirs[~finite], True):
        return Row(name, False, None, tolerance, "other elements are not finite")
    difference = np.abs(ours - theirs, where=finite, out=np.zeros_like(theirs))
    if relative:
        difference /= np.maximum(1.0, np.abs(theirs, where=finite, out=np.zeros_like(theirs)))
    deviation = float(difference.max())
    return Row(name, deviation <= tolerance, deviation, tolerance)


def count(name: str, wrong: Iterable[Any], total: int, tolerance: float = 0, of: str = "entries") -> Row:
    """The number of `wrong` ones among `total`; the first few are named."""
    wrong = [str(w) for w in wrong]
    note = f"of {total} {of}" + (f": {', '.join(wrong[:3])}" if wrong else "")
    return Row(name, total > 0 and len(wrong) <= tolerance, len(wrong), tolerance, note)


def absent(name: str) -> Row:
    return Row(name, None, note="absent")


def unchecked(name: str, why: str) -> Row:
    return Row(name, None, note=f"not checked: {why}")


class Arrays:
    """The arrays of an .npz file."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}
        self.label = path.stem
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        self._read.add(name)
        return self._arrays[name]

    def has(self, *names: str) -> bool:
        return all(name in self for name in names)

    def near(self, name: str, ours: Any, tolerance: float, relative: bool = False) -> Row:
        """Ours against the array `name`, which may be absent."""
        label = f"{self.label} {name}"
        return near(label, ours, self[name], tolerance, relative) if name in self else absent(label)

    def left(self, why: str) -> Iterator[Row]:
        """A line for each array that nothing has looked at."""
        for name in sorted(self._arrays.keys() - self._read):
            yield unchecked(f"{self.label} {name}", why)


def guarded(name: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows, and a failed one for what is raised on the way: a damaged file, or a defect of ours."""
    try:
        yield from rows()
    except UserError as error:
        yield Row(name, False, note=str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield Row(name, False, note=f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
