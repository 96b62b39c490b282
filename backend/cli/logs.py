"""`logs`: the server's log as text, or that of one job; followed, if asked for."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..logs import LEVELS, SERVER_LOG, server_logs
from ..wire import UserError, paths

LOOK_S = 0.3
JOB_START = re.compile(r"[0-9a-f]{4,32}")


def logs(options: argparse.Namespace) -> int:
    """Print the log; with --follow until interrupted. Raises UserError when there is none."""
    home = paths.home()
    if options.job:
        show, files, newest = print_as_it_is, [], job_log(home, options.job)
    else:
        show = line_printer(LEVELS.index(options.level))
        files, newest = server_logs(home)[:-1], paths.logs_folder(home) / SERVER_LOG
    if not newest.is_file():
        raise UserError(f"There is no log {newest} yet", "it is written by 'python -m backend serve'")
    for path in files:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            show(line)
    for line in lines_of(newest, options.follow):
        show(line)
    return 0


def job_log(home: Path, start: str) -> Path:
    """The log of the job whose id begins so. Raises UserError unless there is exactly one."""
    folder = paths.jobs_folder(home)
    found = sorted(folder.glob(f"{start}*/log.txt")) if JOB_START.fullmatch(start) else []
    if len(found) != 1:
        what = "More than one job" if found else "No job with a log"
        raise UserError(f"{what} begins with '{start}'", "give more of its id, as 'python -m backend jobs' lists it")
    return found[0]


def lines_of(path: Path, follow: bool) -> Iterator[str]:
    """The lines of a file, and with `follow` those that come; a file that was rotated away goes on in the new one."""
    while True:
        with open(path, encoding="utf-8", errors="replace") as file:
            rest = ""
            while True:
                rest += file.readline()
                if rest.endswith("\n"):
                    yield rest[:-1]
                    rest = ""
                elif not follow:
                    if rest:
                        yield rest
                    return
                elif _replaced(path, file.fileno()):
                    break
                else:
                    time.sleep(LOOK_S)


def line_printer(least: int):
    """A function that prints a line of JSON as text when its level is that high."""

    def show(line: str) -> None:
        try:
            row = json.loads(line)
            level = row["level"]
            text = f"{row['time']} {level.upper()} {row['logger']}: {row['message']}"
        except (ValueError, KeyError, TypeError):  # cut by a full disk
            print_as_it_is(line)
            return
        if level not in LEVELS or LEVELS.index(level) >= least:
            print_as_it_is("\n".join(filter(None, (text, row.get("exception")))))

    return show


def print_as_it_is(line: str) -> None:
    print(line)
    sys.stdout.flush()


def _replaced(path: Path, number: int) -> bool:
    """Whether the path now leads to another file than the open one, or the file was cut."""
    try:
        there, here = path.stat(), os.fstat(number)
    except OSError:
        return False
    return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev) or here.st_size < os.lseek(number, 0, os.SEEK_CUR)
