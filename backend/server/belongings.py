"""Everything that a worker started, found and ended; run as a program, the guard that does so when the server is gone.

A worker's children are in its process group, unless they made one of their own. All of them carry the worker's mark in
their environment, which Linux shows to other processes of the user: there, none is missed but one that clears its
environment. On Windows a Job object holds them, whose last handle is the server's. On macOS the group is all there is.

The guard (`python -I -S belongings.py MARK PID`, a child of the worker) has the worker's standard input, reads nothing
of it, and wakes when its other end is closed: by the server, after the worker, or by the server's death. It needs no
cooperation of the worker, which may be inside a call that never ends. This file imports nothing of ours for its sake.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

#: The environment variable that holds the mark.
MARK = "KINORA_WORKER"
#: A process may start another while the list of processes is read: so often it is read again at most.
ROUNDS = 20


def bearers(mark: str) -> list[int]:
    """Processes other than this one that carry the mark; none where the system does not tell."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        # What cannot be read has ended meanwhile, or is another user's.
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if wanted in file.read().split(b"\0"):
                found.append(int(name))
    return found


def end_all(pid: int, mark: str) -> None:
    """Kill the worker `pid`, its group, and whatever carries its mark."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)
        return
    for _ in range(ROUNDS):
        left = bearers(mark)
        for each in left:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        if not left:
            break
    with contextlib.suppress(OSError):  # nobody is left in the group
        os.killpg(pid, signal.SIGKILL)


def start_guard() -> None:
    """From a worker at its start: have its belongings ended when whoever started it is gone. Not on Windows."""
    mark = os.environ.get(MARK)
    if sys.platform != "win32" and mark:
        quiet = subprocess.DEVNULL
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark, str(os.getpid())], stdout=quiet, stderr=quiet, cwd="/"
        )


def hold(process: subprocess.Popen) -> Callable[[], Any]:
    """On Windows, put the process into a Job object, which ends it with all its children when we do or call the result.

    Elsewhere the result does nothing. Facts: Microsoft on CreateJobObject and JOBOBJECT_EXTENDED_LIMIT_INFORMATION.
    """
    if sys.platform != "win32":
        return lambda: None
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = wintypes.HANDLE
    kernel.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    job = kernel.CreateJobObjectW(None, None)
    limits = (ctypes.c_byte * (144 if ctypes.sizeof(ctypes.c_void_p) == 8 else 112))()
    ctypes.cast(limits, ctypes.POINTER(wintypes.DWORD))[4] = 0x2000  # LimitFlags: KILL_ON_JOB_CLOSE
    extended_limit_information = 9
    if job and kernel.SetInformationJobObject(job, extended_limit_information, limits, len(limits)):
        kernel.AssignProcessToJobObject(job, int(process._handle))
    return lambda: kernel.CloseHandle(job)


def _guard(mark: str, pid: int) -> None:
    import select

    waiting = select.poll()
    waiting.register(0, 0)  # nothing but the end of the other side
    waiting.poll()
    end_all(pid, mark)


if __name__ == "__main__":
    _guard(sys.argv[1], int(sys.argv[2]))
