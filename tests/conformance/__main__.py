"""`python -m tests.conformance SYSTEM FOLDER`: one line an array; exit status 1 if any fails or none is compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from . import mast3r, monst3r, point3r
from .rows import Check, guarded

#: System -> its parts. Another system is a module with such a table, and a line here.
SYSTEMS: dict[str, Mapping[str, Check]] = {
    "monst3r": monst3r.CHECKS,
    "mast3r": mast3r.CHECKS,
    "point3r": point3r.CHECKS,
}


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("folder", type=Path, help="laid out like the recorded fixtures of the system")
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts alone, by their names in brackets")
    options = parser.parse_args(arguments)
    checks = SYSTEMS[options.system]
    if unknown := set(options.only or ()) - checks.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(checks)}")
    if not options.folder.is_dir():
        print(f"{options.folder} is not a folder", file=sys.stderr)
        return 1
    compared = failed = 0
    print(f"{'':<58} {'deviation':>10} {'tolerance':>10}")
    for part, check in checks.items():
        if options.only and part not in options.only:
            continue
        print(f"[{part}]")
        rows = 0
        for row in guarded(part, lambda check=check: check(options.folder)):
            print(row, flush=True)
            rows += 1
            compared += row.ok is not None
            failed += row.ok is False
        if not rows:
            print(f"{part:<58} nothing")
    if not compared:
        print("nothing was compared")
        return 1
    print(f"{compared} compared, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
