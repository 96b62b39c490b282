"""`python -m tests.chaos --jobs 500 --seed 1`: kill -9 at random times, and whether anything was lost.

A real server, real workers and three real clients do jobs whose results are known, while one process after another is
killed and begun again. Prints what happened; exit code 1 when a target of docs/faults.md is missed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from .storm import Storm


def main() -> int:
    """One storm."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=None, help="of the kills (a new one each time)")
    parser.add_argument("--minutes", type=float, default=90.0, help="what is not done by then counts as lost")
    parser.add_argument("--gap", type=float, default=0.8, help="seconds between kills, on average")
    parser.add_argument(
        "--slots", type=int, default=1, help="jobs at once (more than one: as many cards, or none here)"
    )
    parser.add_argument("--keep", action="store_true", help="leave data and logs where they are, to look into")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="kinora-chaos-"))
    print(f"seed {seed}; data and logs in {folder}", flush=True)
    limit_s = 60 * options.minutes
    report = Storm(folder, options.jobs, seed, gap_s=options.gap, limit_s=limit_s, slots=options.slots).run()
    print(report)
    if report.misses or options.keep:
        print(f"data and logs are kept in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if report.misses else 0


if __name__ == "__main__":
    sys.exit(main())
