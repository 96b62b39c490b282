"""`install_deps.py doctor`: one line for each thing that must be right here, and the remedy where it is not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import install_deps as setup


class Findings:
    """Lines on the screen, and whether one of them was bad."""

    bad = False

    def line(self, good: bool, text: str, remedy: str) -> None:
        self.bad |= not good
        print(f"ok     {text}" if good else f"WRONG  {text}: {remedy}", flush=True)


def examine_machine(findings: Findings) -> None:
    """Disk, interpreters, Blender, installer, network."""
    free_gb = shutil.disk_usage(str(setup.ROOT)).free / 1e9
    findings.line(
        free_gb > 12, f"{free_gb:.0f} GB free on this disk", "an environment takes up to 8 GB, and its making more"
    )
    for version in setup.PYTHONS:
        found = next((p for p in setup.interpreters(version) if setup.version_of(p) == version), None)
        print(f"{'ok    ' if found else '-     '} Python {version}: {found or 'none'}", flush=True)
    print(f"{'ok    ' if shutil.which('blender') else '-     '} Blender on PATH: {shutil.which('blender') or 'none'}")
    uv = setup.find_uv(sys.executable)
    findings.line(bool(uv), f"uv: {uv or 'none'}", "pip does the work, more slowly; the log says why")
    if uv:
        asked = setup.answer(uv, "pip", "compile", "--no-cache", "--no-deps", "--quiet", setup.LOCKS / "tools.txt")
        findings.line(
            bool(asked),
            f"package registry: {'answers' if asked else 'no answer'}",
            "look at the network, proxy or mirror (docs/install.md)",
        )


def examine_environment(folder: Path, findings: Findings) -> None:
    """Marker, locks, files, and whether the packages load and compute where they should."""
    env = setup.Environment(folder, sys.executable, folder.name.partition("-")[2], None)
    have = env.complete()
    findings.line(bool(have), f"{folder.name}: {', '.join(have) or 'incomplete'}", "run the command that made it again")
    stale = [group for group, lock in env.wanted(tuple(have)).items() if have[group] != lock]
    findings.line(
        not stale,
        f"{folder.name}: {', '.join(stale) or 'nothing'} older than its lock",
        "run the command that made it again",
    )
    damaged = setup.damaged_packages(env.site)
    bad = ", ".join(f"{name} of {info.name}" for info, name in damaged.items())
    findings.line(
        not damaged,
        f"{folder.name}: {bad or 'nothing'} missing or cut",
        "run the command that made it again, with --repair",
    )
    if have and not damaged:
        try:
            env.attempt(have)
        except setup.Problem as problem:
            findings.line(False, folder.name, str(problem))


if __name__ == "__main__":
    findings = Findings()
    examine_machine(findings)
    for folder in sorted(f for f in setup.ROOT.glob(".venv-3.*") if f.is_dir()):
        examine_environment(folder, findings)
    sys.exit(int(findings.bad))
