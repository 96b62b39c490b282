"""One finding: how bad, about what, in words, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MARKS = {"ok": "ok", "note": "--", "wrong": "!!"}


@dataclass(frozen=True)
class Finding:
    """`level` is 'ok', 'note' (worth knowing, nothing is broken) or 'wrong'; `name` is one word."""

    level: str
    name: str
    text: str
    remedy: str = ""

    def line(self) -> str:
        """One line for people; the add-on reads it too."""
        words = f"{self.text}; {self.remedy}" if self.remedy else self.text
        return f"{MARKS[self.level]} {self.name:<12} {' '.join(words.split())}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(name: str, text: str) -> Finding:
    return Finding("ok", name, text)


def note(name: str, text: str, remedy: str = "") -> Finding:
    return Finding("note", name, text, remedy)


def wrong(name: str, text: str, remedy: str) -> Finding:
    return Finding("wrong", name, text, remedy)
