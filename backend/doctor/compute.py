"""What this machine computes with: cards and their driver, torch and whether it reaches them, memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..machine import ASK_S, described, memory_free, nvidia
from .finding import Finding, note, ok, wrong
from .libraries import Libraries

GIB = 2**30
LOW_MEMORY = 2 * GIB  # with less than this free, a job of any length is in danger
BUSY_CARD = 0.5  # a card of which less than this share is free is being used by something else
OTHER_BUILD = "run 'python3 install_deps.py backend --torch {}'"
HIDES = ("KINORA_DEVICE", "CUDA_VISIBLE_DEVICES")
NVIDIA_VENDOR, DISPLAY_CLASS = "0x10de", "0x03"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's: its version, the newest CUDA that it runs, and the cards as (name, bytes, free bytes)."""

    version: str
    cuda: str
    cards: list[tuple[str, int, int]]


def examine(libraries: Libraries) -> Iterator[Finding]:
    """Driver, cards, torch, memory."""
    driver = nvidia_driver()
    yield from _driver(driver)
    yield judge_torch(driver, libraries.told["torch"], libraries.told["failed"].get("torch", ""), dict(os.environ))
    yield ok("device", described())
    yield from memory()


def nvidia_driver() -> Driver | None:
    """What NVIDIA's tool says; None when it is not here or reaches no driver."""
    rows = nvidia("name,memory.total,memory.free,driver_version", "nounits")
    if not rows:
        return None
    cards, version = [], ""
    for row in rows.splitlines():
        name, total, free, version = (part.strip() for part in row.rsplit(",", 3))
        cards.append((name, _mib(total), _mib(free)))
    try:
        header = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=ASK_S, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        header = ""
    found = re.search(r"CUDA[ \w]*Version\s*:\s*([\d.]+)", header)
    return Driver(version, found[1] if found else "", cards)


def _driver(driver: Driver | None) -> Iterator[Finding]:
    if driver is None:
        if shutil.which("nvidia-smi"):
            yield wrong("driver", "nvidia-smi is here but reaches no driver", "install NVIDIA's driver again, restart")
        elif card_without_driver():
            yield note("driver", "there is an NVIDIA card, but nothing of its driver", "install NVIDIA's driver")
        return
    yield ok("driver", f"NVIDIA {driver.version}" + (f", for CUDA up to {driver.cuda}" if driver.cuda else ""))
    for name, total, free in driver.cards:
        words = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free" if total else name
        if free < BUSY_CARD * total:
            yield note("gpu", words, "other programs hold its memory; 'nvidia-smi' says which")
        else:
            yield ok("gpu", words)


def judge_torch(driver: Driver | None, told: dict[str, Any] | None, failed: str, environment: dict) -> Finding:
    """Whether torch uses what the machine has. `told` and `failed` are of libraries.py."""
    if failed:
        return wrong("torch", f"does not load: {failed}", OTHER_BUILD.format("auto --repair"))
    if told is None:
        more = f", and the {driver.cards[0][0]} is idle without it" if driver else ""
        return ok("torch", f"not installed; the classical engine does not need it{more}")
    name = told["version"]
    if told["error"]:
        return wrong("torch", f"{name} does not compute on {told['device']}: {told['error']}", _build_for(driver))
    if told["device"] != "cpu":
        cards = "; ".join(f"{card}, {size / GIB:.0f} GiB" for card, size in told["cards"])
        return ok("torch", f"{name} computes on {cards}")
    if driver is None:
        return ok("torch", f"{name} computes on the processor")
    card = driver.cards[0][0]
    hiding = next((f"{v}={environment[v]}" for v in HIDES if environment.get(v) in ("", "-1", "cpu")), "")
    if hiding:
        return note("torch", f"{name} computes on the processor: {hiding} hides the {card}")
    if told["hip"] or not told["cuda"]:
        idle = f"{name} computes on the processor, not on the {card}: its build has no CUDA"
        return wrong("torch", idle, _build_for(driver))
    if driver.cuda and _major(told["cuda"]) > _major(driver.cuda):
        return wrong(
            "torch",
            f"{name} is for CUDA {told['cuda']}, driver {driver.version} runs CUDA {driver.cuda} at most: "
            f"the {card} is not used",
            f"update the driver, or {_build_for(driver)}",
        )
    idle = f"{name} computes on the processor, not on the {card}"
    return wrong("torch", idle, "restart the machine, or " + _build_for(driver))


def _build_for(driver: Driver | None) -> str:
    """The command for a build of torch that the driver runs; those of 12 are the oldest that there are."""
    old = driver is not None and driver.cuda and _major(driver.cuda) <= 12
    return OTHER_BUILD.format("cu126" if old else "auto")


def memory() -> Iterator[Finding]:
    """Memory and swap, and the limit of the container that this runs in."""
    free = memory_free()
    limit = _container_limit()
    words = f"{free / GIB:.1f} GiB free"
    swap = _meminfo().get("SwapTotal")
    if swap is not None:
        words += f", {swap / GIB:.1f} GiB of swap" if swap else ", no swap"
    if limit is not None:
        words += f", at most {limit / GIB:.1f} GiB in this container or service"
    if min(free, limit or free) < LOW_MEMORY:
        yield note("memory", words, "close other programs, or lower the resolution of jobs")
    else:
        yield ok("memory", words)


def card_without_driver(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether there is a display controller of NVIDIA's on the bus."""
    for device in devices.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA_VENDOR and kind.startswith(DISPLAY_CLASS):
            return True
    return False


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes; empty elsewhere than on Linux."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def _container_limit() -> int | None:
    """The control group's limit of memory, when it is less than the machine has."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _meminfo().get("MemTotal", 0):
            return int(text)
    return None


def _mib(text: str) -> int:
    return int(text) * 2**20 if text.isdigit() else 0


def _major(version: str) -> int:
    return int(version.partition(".")[0])
