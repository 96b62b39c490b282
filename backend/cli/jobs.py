"""`jobs`: look at and change the jobs that this machine gave to its server."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ..wire import UserError, messages
from .control import chosen
from .talk import Ask, talk

GIB = 1024**3


def jobs(options: argparse.Namespace) -> int:
    """Do what `options.deed` says. Raises UserError when nobody answers, for an unknown job and for a refusal."""
    with talk(chosen(options.connection)) as ask:
        globals()[f"_{options.deed}"](ask, options)
    return 0


def _list(ask: Ask, _: argparse.Namespace) -> None:
    rows = _rows(ask)
    for row in rows:
        state = f"{row['state']}, {row['position']} before it" if row["state"] == "queued" else row["state"]
        marks = [
            f"priority {row['priority']}" if row["priority"] and row["state"] not in messages.ENDED else "",
            "pinned" if row["pinned"] else "",
            f"{row['bytes'] / GIB:.2f} GiB" if row["state"] == "done" else "",
        ]
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        print(f"{row['job']}  {created}  {', '.join([state, *filter(None, marks)])}  {row['name']} ({row['engine']})")
    if not rows:
        print("The server has no jobs of this machine")


def _cancel(ask: Ask, options: argparse.Namespace) -> None:
    for row in _named(ask, options.names):
        state = ask("cancel", job=row["job"])["state"]
        print(f"{row['name']}: {'being cancelled' if state == 'running' else state}")


def _delete(ask: Ask, options: argparse.Namespace) -> None:
    for row in _named(ask, options.names):
        ask("delete", job=row["job"])
        print(f"{row['name']}: deleted, with its files on the server")


def _pin(ask: Ask, options: argparse.Namespace) -> None:
    for row in _named(ask, options.names):
        pinned = ask("pin", job=row["job"], pinned=not options.off)["pinned"]
        print(f"{row['name']}: {'kept until it is deleted' if pinned else 'forgotten when it is old'}")


def _priority(ask: Ask, options: argparse.Namespace) -> None:
    for row in _named(ask, options.names):
        told = ask("prioritise", job=row["job"], priority=options.priority)
        print(f"{row['name']}: priority {told['priority']}, {told['position']} before it")


def _usage(ask: Ask, _: argparse.Namespace) -> None:
    told = ask("usage")
    limit = f" of {told['quota'] / GIB:.2f} GiB" if "quota" in told else ""
    print(f"{told['jobs']} jobs take {told['bytes'] / GIB:.2f} GiB{limit}; {told['free'] / GIB:.2f} GiB are free")


def _rows(ask: Ask) -> list[dict[str, Any]]:
    """All jobs, oldest first. One that comes meanwhile may be missing, none is there twice."""
    found: dict[str, dict[str, Any]] = {}
    while True:
        told = ask("list", first=len(found))
        found |= {row["job"]: row for row in told["jobs"]}
        if len(found) >= told["total"] or not told["jobs"]:
            return list(reversed(found.values()))


def _named(ask: Ask, names: list[str]) -> list[dict[str, Any]]:
    """The jobs whose ids begin so."""
    rows = _rows(ask)
    found = {name: [row for row in rows if row["job"].startswith(name.lower())] for name in names}
    for name, named in found.items():
        if len(named) != 1:
            words = "are several" if named else "is no"
            raise UserError(f"There {words} job {name}", "'python -m backend jobs list' shows their ids")
    return [named[0] for named in found.values()]
