"""`python -m tests.fuzz --inputs 1000000`: every target of targets.py under atheris, guided by what code is reached.

Needs atheris (wheels for Python 3.12 to 3.14 on Linux and macOS), NumPy and pyzmq, and nothing else of ours; it is no
part of the locked environments. Exit code 1 when an input escapes, hangs or makes the process grow; the input is kept
in the folder that is printed, and `--replay FILE --target NAME` runs it again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INPUT_MAX = 16 * 1024  # bytes; enough for what is read here
SECONDS_MOST = 10  # of one input: longer is a hang
GROWTH_MOST = 64 * 2**20
NEEDS = "this needs atheris: `uv venv --python 3.13 DIR && uv pip install --python DIR atheris numpy pyzmq zstandard`"


def main() -> int:
    """All targets, or one."""
    options = _options()
    if options.child:
        return _child(options)
    if options.replay:
        from .targets import TARGETS

        taken = TARGETS[options.target].run(options.replay.read_bytes())
        print("nothing escaped; it is taken" if taken else "nothing escaped; it is refused")
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(NEEDS, file=sys.stderr)
        return 2
    from .targets import TARGETS

    chosen = {name: target for name, target in TARGETS.items() if options.target in (None, name)}
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kinora-fuzz-"))
    print(f"what is found lies in {folder}; seed {options.seed}")
    shares, began, total, bad = sum(t.share for t in chosen.values()), time.monotonic(), 0, 0
    for name, target in chosen.items():
        inputs, found = _campaign(name, round(options.inputs * target.share / shares), folder / name, options.seed)
        total, bad = total + inputs, bad + (found != "")
        print(found, end="", flush=True)
    print(f"{total} inputs in {time.monotonic() - began:.0f} s; {bad} targets with findings")
    return 1 if bad or total < options.inputs else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, shared out among the targets")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where inputs that found new code are kept, and taken up again")
    parser.add_argument("--replay", type=Path, help="run one input again")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _campaign(name: str, inputs: int, folder: Path, seed: int) -> tuple[int, str]:
    """Run one target in a process of its own; how many inputs it took, and what it found, in words."""
    from .targets import TARGETS

    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, good in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(good)
    command = [sys.executable, "-m", "tests.fuzz", "--child", "--target", name, "--folder", str(folder)]
    command += ["--inputs", str(inputs), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    told = done.stdout + done.stderr
    executed = int((re.findall(r"number_of_executed_units: *(\d+)", told) or ["0"])[0])
    reached = int((re.findall(r"cov: *(\d+)", told) or ["0"])[-1])
    peak = int((re.findall(r"peak_rss_mb: *(\d+)", told) or ["0"])[0])
    slowest = int((re.findall(r"slowest_unit_time_sec: *(\d+)", told) or ["0"])[0])
    grew = float((re.findall(r"grew by (-?[\d.]+) MiB", told) or ["0"])[-1])
    print(f"{name:16}{executed:9} inputs  {reached:5} edges  peak {peak} MiB, grew {grew:.1f}, slowest {slowest} s")
    if done.returncode:
        return executed, f"{name} ended with code {done.returncode}:\n{told[-3000:]}\n"
    return executed, ""


def _child(options: argparse.Namespace) -> int:
    """The fuzzer itself. libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["blender_addon.wire", "backend.server.keys", "tests.fuzz.targets"]):
        from .targets import TARGETS

    run = TARGETS[options.target].run
    count, at_first = 0, 0

    def one(data: bytes) -> None:
        nonlocal count, at_first
        run(data)
        count += 1
        if count == max(1, options.inputs // 5):
            at_first = _resident()
        if at_first and count % max(1, options.inputs // 20) == 0:
            grew = _resident() - at_first
            print(f"grew by {grew / 2**20:.1f} MiB", flush=True)
            assert grew < GROWTH_MOST, f"{grew} bytes more after {count} inputs"

    folder = options.folder
    atheris.Setup(
        [
            *(sys.argv[0], str(folder / "corpus"), f"-runs={options.inputs}", f"-seed={options.seed}"),
            *(f"-max_len={INPUT_MAX}", f"-timeout={SECONDS_MOST}", "-rss_limit_mb=1024", "-print_final_stats=1"),
            *(f"-artifact_prefix={folder}/", "-verbosity=1", "-len_control=20"),
        ],
        one,
    )
    atheris.Fuzz()
    return 0


def _resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say so simply."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
