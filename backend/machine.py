"""What this machine has to compute with, and how much of it is free, without importing anything heavy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ASK_S = 10.0


@dataclass(frozen=True)
class Machine:
    """Cores and bytes; `gpu_free` is of the first graphics card, None without one that NVIDIA's tool knows."""

    cores: int
    memory_free: int
    gpu_free: int | None = None


def this_machine() -> Machine:
    """The machine as it is now; asks the driver's tool, which takes a moment."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # torch sees the cards that this variable leaves; without any, the processor works.
    hidden = os.environ.get("KINORA_DEVICE") == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    told = "" if hidden else nvidia("memory.free", "nounits")
    first = told.partition("\n")[0].strip()
    return Machine(cores, memory_free(), int(first) * 2**20 if first.isdigit() else None)


def nvidia(query: str, *forms: str) -> str:
    """What NVIDIA's tool says of each card, a line each; '' without the tool or a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={query}", ",".join(["--format=csv", "noheader", *forms])]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return ""


def memory_free() -> int:
    """Bytes of memory that are available without swapping; on macOS, half of what is built in."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        if "MemAvailable" in rows:
            return 1024 * int(rows["MemAvailable"].split()[0])
    if sys.platform == "win32":
        return _available_on_windows()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _available_on_windows() -> int:
    """The available physical memory of GlobalMemoryStatusEx: the second of seven 64-bit numbers after two of 32."""
    import ctypes

    status = (ctypes.c_uint64 * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("Windows does not say how much memory is available")
    return int(status[2])


def described() -> str:
    """What this machine computes with, in words, without importing torch."""
    told = nvidia("name,memory.total")
    if told:
        return "; ".join(told.splitlines())[:200]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple silicon"
    return f"CPU, {os.cpu_count()} threads"
