"""How a worker ended that had no last word: killed for want of memory, by us, by somebody else, or crashed."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: Exit codes of Windows (NTSTATUS) that say memory ran out, and that say a crash.
NO_MEMORY = {0xC0000017, 0xC000012D}
CRASHED = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000374: "damaged heap"}
#: What a process gets that is asked to end: by `kill`, a terminal or a service manager.
ENDED_BY_SOMEBODY = {-2, -15, -1}
#: Where no counter tells, and for killers outside the kernel: memory was out when less than this share was free, and
#: the worker was to blame when it had at least this share of what was not.
LITTLE_FREE, MOST_HELD = 0.1, 0.25
READING = "Reading the clip"


@dataclass
class Vitals:
    """What was known of a worker when it ended: `killed_for` '', 'cancel', 'end' or what it hung in; the last stage;
    and of its last heartbeat the bytes it held and the bytes the machine had free."""

    log_file: Path
    killed_for: str = ""
    stage: str = ""
    memory_bytes: int = 0
    memory_free: int | None = None
    ooms_before: dict[str, int] = field(default_factory=dict)


def oom_counts() -> dict[str, int]:
    """How often the kernel killed a process for want of memory: of this 'group' of processes, and on this 'machine'.

    Only what the system tells. Control groups of version 2 count in memory.events, of version 1 in memory.oom_control.
    """
    counts = {}
    try:
        rows = [row.split(":", 2) for row in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        rows = []
    places = [f"/sys/fs/cgroup{path}/memory.events" for _, kinds, path in rows if not kinds]
    places += [f"/sys/fs/cgroup/memory{path}/memory.oom_control" for _, kinds, path in rows if kinds == "memory"]
    for name, place in [*(("group", place) for place in places), ("machine", "/proc/vmstat")]:
        try:
            counts[name] = next(int(r.split()[1]) for r in Path(place).read_text().splitlines() if "oom_kill " in r)
        except (OSError, StopIteration, ValueError):
            continue
    return counts


def memory_ran_out(vitals: Vitals) -> str:
    """By what one knows that a killed worker was killed for want of memory; '' when nothing says so."""
    now = oom_counts()
    if now.get("group", 0) > vitals.ooms_before.get("group", now.get("group", 0)):
        return "the kernel counted it in this group of processes"
    if now.get("machine", 0) > vitals.ooms_before.get("machine", now.get("machine", 0)):
        return "the kernel counted one on this machine"
    held, free = vitals.memory_bytes, vitals.memory_free
    total = memory_total()
    if free is None or total is None or free > LITTLE_FREE * total or held < MOST_HELD * (total - free):
        return ""
    return f"a moment before, {_gb(free)} of memory were free"


def silent_end(code: int, vitals: Vitals) -> dict:
    """The fields of the Outcome of a worker that ended with `code` (negative: a signal) without a last word."""
    log = f"see the log {vitals.log_file}"
    where = f" in '{vitals.stage}'" if vitals.stage else ""
    told = {"state": "failed", "bug": True}
    if vitals.killed_for == "cancel":
        return {"state": "cancelled"}
    if vitals.killed_for == "end":
        return {**told, "message": "The job was ended with the backend", "hint": "submit it again", "cause": "lost"}
    if vitals.killed_for:
        hint = f"submit the job again; when it hangs there again, this is a bug; {log}"
        message = f"The worker process hung{where} and was killed: {vitals.killed_for}"
        return {**told, "message": message, "hint": hint, "cause": "hang"}
    if code in ENDED_BY_SOMEBODY:
        message = f"The worker process was ended{where} by another program or a person"
        return {**told, "message": message, "hint": f"submit the job again; {log}", "cause": "crash"}
    if code < 0 and -code == getattr(signal, "SIGKILL", 9):
        if evidence := memory_ran_out(vitals):
            held = f", it held {_gb(vitals.memory_bytes)}" if vitals.memory_bytes else ""
            message = f"The worker process was killed because memory ran out{where} ({evidence}{held})"
            return {**told, "message": message, "hint": f"{LESS_MEMORY}; {log}", "cause": "out_of_memory"}
        message = f"The worker process was killed{where} by another program or a person"
        return {**told, "message": message, "hint": f"submit the job again; {log}", "cause": "crash"}
    if code in NO_MEMORY:
        message = f"The worker process ended because memory ran out{where}"
        return {**told, "message": message, "hint": f"{LESS_MEMORY}; {log}", "cause": "out_of_memory"}
    hint = f"this is a bug; {log}"
    if vitals.stage == READING:
        hint = f"the clip may be damaged: re-encode it as H.264 in an .mp4; {log}"
    if code < 0 or code in CRASHED:
        known = -code in set(signal.Signals)
        name = CRASHED.get(code) or (signal.Signals(-code).name if known else f"signal {-code}")
        return {**told, "message": f"The worker process crashed ({name}){where}", "hint": hint, "cause": "crash"}
    return {**told, "message": f"The worker process ended with code {code}{where}", "hint": hint, "cause": "crash"}


LESS_MEMORY = "lower Resolution or use fewer frames, or close other programs"


def memory_total() -> int | None:
    """Bytes of memory of this machine, None where Linux's list is missing."""
    if sys.platform != "linux":
        return None
    row = Path("/proc/meminfo").read_text(encoding="ascii").partition("\n")[0]
    return 1024 * int(row.split()[1])


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
