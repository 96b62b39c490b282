#!/usr/bin/env python3
"""Sets up everything that Kinora needs, with nothing but Python's standard library.

    python3 install_deps.py demo        set up, reconstruct the demo clip, write demo/
    python3 install_deps.py test        set up, run the tests (what follows goes to pytest)
    python3 install_deps.py backend     set up the side that computes, and tell the add-on where it is
    python3 install_deps.py extension   build the add-on for Blender: dist/kinora-<version>.zip
    python3 install_deps.py doctor      look at this machine and say what is wrong

Packages go into .venv-<version of Python> beside this file and nowhere else; requirements/*.txt pin each one by hash.
Every command can be stopped and run again. An installer that was killed leaves an environment that looks complete, so
one counts as complete only with a marker in it, written last: after each file was found and the packages were tried.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCKS = ROOT / "requirements"
TOOLS = ROOT / ".venv-tools"
CACHE = ROOT / ".cache"
LOG = CACHE / "install.log"
WINDOWS = sys.platform == "win32"
TEXT = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}

#: Command -> what its environment holds; a group is requirements/<group>.txt.
GROUPS = {
    "backend": ("torch", "backend"),
    "demo": ("torch", "backend", "blender"),
    "test": ("torch", "backend", "blender", "cluster", "test"),
}
BPY_PYTHONS = ("3.13", "3.11")  # with bpy 5.2 LTS and 4.5 LTS; there is no bpy for 3.12
PYTHONS = (*BPY_PYTHONS, "3.12")
LOCKED = ("--no-deps", "--only-binary", ":all:", "--require-hashes")  # a lock is whole: nothing to resolve or to build

#: What an installer's last words mean to the person who reads them.
REASONS = (
    (r"No space left|os error 28|Errno 28|not enough space", "the disk is full; free some space"),
    (r"hash mismatch|DO NOT MATCH", "a package is not the one that was locked; ask whoever runs your mirror"),
    (r"no wheels|No matching distribution|current platform", "a package has no build for this kind of machine"),
    (r"Permission denied|Access is denied", "a file could not be written; see who owns this folder"),
    (r"ensurepip|No module named venv", "this Python lacks venv; on Debian and Ubuntu: sudo apt install python3-venv"),
    (r"\.so\S*: cannot open", "a library of the system is missing; docs/install.md lists what Blender needs"),
    (r"dns|resolv|fetch|timed? out|connect|proxy", "the packages cannot be reached; look at the network and the proxy"),
)

as_json = False  # progress for a program (--json) or for a person


class Problem(Exception):
    """Something that the person at the keyboard can put right; its text says what happened and what to do."""


def log(text: str) -> None:
    LOG.parent.mkdir(exist_ok=True)
    with open(LOG, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def say(text: str, **more: object) -> None:
    """Tell of progress: a line to read, or one of JSON."""
    log(text)
    numbered = f"[{more['step']}/{more['of']}] {text}" if "of" in more else text
    print(json.dumps({"text": text, **more}) if as_json else numbered, flush=True)


def environment(**more: str) -> dict:
    """This process's variables and `more`, less those that lead another interpreter astray or have it compile anew."""
    astray = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PYTHONDONTWRITEBYTECODE")
    return {**{k: v for k, v in os.environ.items() if k not in astray}, "PYTHONUTF8": "1", **more}


def answer(*command: object) -> str | None:
    """What a program prints, or None when it cannot be run, fails, or takes more than a minute."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, **TEXT, stderr=subprocess.PIPE, timeout=60, check=True, env=environment())
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def run(command: list, what: str, timeout: float = 7200, **variables: str) -> str:
    """What an installer prints, all of it logged and the telling lines said. Raises Problem if it fails."""
    words, lines = [str(word) for word in command], []
    log("$ " + " ".join(words))
    process = subprocess.Popen(words, **TEXT, stderr=subprocess.STDOUT, cwd=str(ROOT), env=environment(**variables))
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            log("  " + lines[-1])
            if re.match(r"\s*(Downloading|Downloaded|Installed)\b", line):
                say("      " + line.strip())
        if process.wait() == 0:
            return "\n".join(lines)
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    last = "\n".join(lines)[-3000:]
    reason = next((why for sign, why in REASONS if re.search(sign, last, re.IGNORECASE)), "the log says why")
    raise Problem(f"{what} failed: {reason}, and run the same command again, it goes on from there. Log: {LOG}")


def version_of(python: object) -> str | None:
    """`3.13` of an interpreter that the packages are built for; None of any other, and of a shim for none at all."""
    usual = "sys.implementation.name == 'cpython' and sys.maxsize > 2**32 and 't' not in getattr(sys, 'abiflags', '')"
    return answer(python, "-c", f"import sys; print('{{}}.{{}}'.format(*sys.version_info) if {usual} else '')") or None


def interpreters(version: str) -> list:
    """Where an interpreter of this version may be: on PATH, with pyenv, uv or Windows' launcher, inside a Blender."""
    name = "python.exe" if WINDOWS else "bin/python3"
    found = [shutil.which(f"python{version}")]
    for folder in (".pyenv/versions", ".local/share/uv/python", "AppData/Roaming/uv/python"):
        found += sorted((Path.home() / folder).glob(f"*{version}.*/{name}"), reverse=True)
    found.append(answer("py", f"-{version}", "-c", "import sys; print(sys.executable)") if WINDOWS else None)
    if shutil.which("blender"):
        ask = ("--background", "--factory-startup", "--python-expr", "import sys; print('python:', sys.executable)")
        found += re.findall(r"(?m)^python: (.+)$", answer(shutil.which("blender"), *ask) or "")
    return [str(f) for f in found if f]


def choose_python(wanted: tuple, named: str | None = None) -> tuple:
    """(interpreter, version): the one named, or the running one if it will do, or one found, or one that uv fetches."""
    needed, running = f"Python {' or '.join(wanted)}", version_of(sys.executable)
    if named:
        version = version_of(named)
        if version not in wanted:
            raise Problem(f"{named} is {version or 'no Python'}, and this needs {needed}; name another.")
        return shutil.which(named), version
    if running in wanted:
        return sys.executable, running
    for version in wanted:
        for python in interpreters(version):
            if version_of(python) == version:
                return python, version
    uv = find_uv(sys.executable)
    if uv:
        say(f"There is no {needed} on this machine: fetching {wanted[0]}")
        with contextlib.suppress(Problem):
            run([uv, "python", "install", wanted[0]], "Fetching Python", timeout=600)
            return answer(uv, "python", "find", wanted[0]), wanted[0]
    raise Problem(
        f"{needed} was not found (this is {platform.python_version()}); install it, or name one with --python PATH."
    )


def python_in(env: Path) -> Path:
    return env / ("Scripts/python.exe" if WINDOWS else "bin/python")


def find_uv(python: str) -> object:
    """The locked uv, in an environment of its own that brings pip as well; else uv on PATH; else None."""
    uv = python_in(TOOLS).with_name("uv.exe" if WINDOWS else "uv")
    locked = re.search(r"(?m)^uv==(\S+)", (LOCKS / "tools.txt").read_text(encoding="utf-8")).group(1)
    with alone(TOOLS):
        if f"uv {locked}" in (answer(uv, "--version") or ""):
            return uv
        try:
            run([python, "-m", "venv", "--clear", TOOLS], "Making the installer's environment")
            run([python_in(TOOLS), "-m", "pip", "install", *LOCKED, "-r", LOCKS / "tools.txt"], "Installing uv")
            return uv
        except Problem as problem:
            found = shutil.which("uv")
            say(f"{'Using the uv on PATH' if found else 'Going on with pip'}. ({problem})")
            return found


def damaged_packages(site: Path) -> dict:
    """{.dist-info folder: the file of that package which is missing or cut}, by every line of every RECORD."""

    def whole(name: str, size: str) -> bool:
        try:
            return not size or (site / name).stat().st_size == int(size)
        except (OSError, ValueError):
            return False

    damaged = {}
    for info in sorted(site.glob("*.dist-info")):
        record = info / "RECORD"
        rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines())) if record.is_file() else []
        bad = [row[0] for row in rows if len(row) != 3 or not whole(row[0], row[2])]
        if [f"{info.name}/RECORD", "", ""] not in rows:  # it names itself too
            bad.append("RECORD")
        if bad:
            damaged[info] = bad[0]
    return damaged


@contextlib.contextmanager
def alone(folder: Path):
    """One installer at a time works on an environment; the system frees the lock of one that dies."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{folder.name}.lock", "w", encoding="utf-8") as file:
        if WINDOWS:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Environment:
    """One virtual environment: made, filled by the locks, verified file by file, tried, marked complete."""

    def __init__(self, folder: Path, base: str, version: str, uv: object) -> None:
        self.folder, self.base, self.version, self.uv = folder, base, version, uv
        self.python = python_in(folder)
        self.marker = folder / "KINORA_COMPLETE"
        self.site = folder / ("Lib/site-packages" if WINDOWS else f"lib/python{version}/site-packages")

    def complete(self) -> dict:
        """{group: what is installed of it}, as the marker has it; empty without one."""
        try:
            return json.loads(self.marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def wanted(self, groups: tuple, build: str | None = None) -> dict:
        """{group: the hash of its lock}; for torch also the build: the one asked for, else the one that is there."""
        build = build or self.complete().get("torch", "auto").split()[-1]
        groups = [g for g in groups if g != "torch" or build != "none"]
        hashes = {g: hashlib.sha256((LOCKS / f"{g}.txt").read_bytes()).hexdigest() for g in groups}
        return {g: f"{h} {build}" if g == "torch" else h for g, h in hashes.items()}

    def ensure(self, groups: tuple, build: str | None = None, repair: bool = False) -> None:
        """Bring the environment to what the locks say; at once if the marker says that it is there. Raises Problem."""
        have, wanted = self.complete(), self.wanted(groups, build)
        stale = {g: w for g, w in wanted.items() if have.get(g) != w}
        if not stale and not repair:
            return
        say(f"Setting up {self.folder.name} for {self.base}")
        every = {**have, **wanted}
        steps = (
            ("making the environment", self.make),
            ("installing " + (", ".join(stale) or "nothing new"), lambda: self.install(stale)),
            ("checking every file", lambda: self.verify(every)),
            ("trying the packages", lambda: self.attempt(every)),
        )
        for number, (text, step) in enumerate(steps, 1):
            say(text, step=number, of=len(steps))
            step()
        beside = self.marker.with_suffix(".new")
        beside.write_text(json.dumps(every, indent=1), encoding="utf-8")
        os.replace(beside, self.marker)

    def make(self) -> None:
        """The environment without a marker; one that is there and runs is kept, with what a stopped run got done."""
        if version_of(self.python) == self.version:
            if self.marker.exists():
                self.marker.unlink()
            else:
                self.discard_damaged()
            return
        tool = [self.uv, "venv", "--python", self.base] if self.uv else [self.base, "-m", "venv"]
        run([*tool, "--clear", self.folder], "Making the environment")

    def pip(self, command: str, *arguments: object, what: str, timeout: float = 7200, **variables: str) -> None:
        uv_pip, pip = [self.uv, "pip", command, "--python", self.python], [self.python, "-m", "pip", command]
        run([*(uv_pip if self.uv else pip), *arguments], what, timeout, **variables)

    def discard_damaged(self) -> list:
        """Forget each damaged package, so that the installer sees it as absent. Returns their names."""
        damaged = damaged_packages(self.site)
        for info, name in damaged.items():
            log(f"damaged: {name} of {info.name}")
            shutil.rmtree(info)
        return [info.name.partition("-")[0] for info in damaged]

    def install(self, wanted: dict) -> None:
        if "torch" in wanted:
            self.install_torch(wanted["torch"].split()[-1])
        locks = [f"-r{LOCKS / group}.txt" for group in wanted if group != "torch"]
        if locks:
            self.pip("install", *LOCKED, *locks, what="Installing the packages")

    def install_torch(self, build: str) -> None:
        """torch and torchvision as a pair: from their makers' index, where uv picks by driver, or the registry."""
        self.clear_torch()
        if self.uv and build != "default" and (build, sys.platform) != ("auto", "darwin"):
            # The same versions as in the lock, but its hashes are of the registry's files: these come without.
            wanted = ("-r", LOCKS / "torch-index.txt", "--only-binary", ":all:", "--torch-backend", build)
            try:  # asked first, and briefly: a firewall that drops packets must not hold us up
                brief = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1"}
                self.pip("install", "--dry-run", *wanted, what=f"Asking for PyTorch ({build})", timeout=90, **brief)
                self.pip("install", *wanted, what=f"Installing PyTorch ({build})")
                return
            except Problem as problem:
                if build != "auto":
                    raise
                log(str(problem))
                say("PyTorch's own index does not answer: taking the build of the default registry, large on Linux")
                self.clear_torch()
        self.pip("install", *LOCKED, "-r", LOCKS / "torch.txt", what="Installing PyTorch")

    def clear_torch(self) -> None:
        """Away with both, lest one of the pair stay from here and the other come from there."""
        for folder in filter(Path.is_dir, self.site.glob("torch*")):
            shutil.rmtree(folder)

    def verify(self, wanted: dict) -> None:
        """See that each file of each package is there, installing once more what is not. Raises Problem if in vain."""
        broken = self.discard_damaged()
        if broken:
            say(f"Incomplete, so installed again: {', '.join(broken)}")
            answer(self.uv, "cache", "clean", *broken)  # what lies there may be what is damaged here
            self.install(wanted)
            if self.discard_damaged():
                raise Problem(f"{broken} cannot be installed whole; look at the disk, delete {self.folder}, run again.")

    def attempt(self, wanted: dict) -> None:
        """Import all and compute, in children: Blender's module is not meant to live with all the others."""
        build = wanted.get("torch", "none").split()[-1]
        for groups in ([g for g in wanted if g != "blender"], [g for g in wanted if g == "blender"]):
            if groups:
                say(run([self.python, LOCKS / "attempt.py", build, *groups], "Trying the packages").splitlines()[-1])


def prepare(options: argparse.Namespace) -> Environment:
    """The complete environment of a command."""
    base, version = choose_python(PYTHONS if options.command == "backend" else BPY_PYTHONS, options.python)
    env = Environment(ROOT / f".venv-{version}", base, version, find_uv(base))
    with alone(env.folder):
        env.ensure(GROUPS[options.command] + ("cluster",) * options.cluster, options.torch, options.repair)
    return env


def backend(env: Environment) -> None:
    """Tell the add-on, through the user's data folder, which Python runs the backend and where."""
    code = "from blender_addon.wire import paths; paths.make_private(paths.home()); print(paths.backend_pointer())"
    pointer = Path(run([env.python, "-c", code], "Finding the data folder").splitlines()[-1])
    pointer.write_text(json.dumps({"python": str(env.python), "repo": str(ROOT)}, indent=1), encoding="utf-8")
    say(f"The backend is ready; the add-on finds it by {pointer}")


def extension(*options: str) -> None:
    """Build the zip, or with --wheels only fetch what goes into it; pip does the fetching."""
    base, _ = choose_python(PYTHONS)
    find_uv(base)
    pip = python_in(TOOLS) if python_in(TOOLS).exists() else base
    say(run([base, LOCKS / "extension.py", pip, *options], "Building the extension").rpartition("\n")[2])


def main() -> int:
    global as_json
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written, allow_abbrev=False)
    parser.add_argument("command", choices=(*GROUPS, "extension", "doctor"))
    parser.add_argument("--python", metavar="PATH", help="build on this Python, not on the running or the best one")
    parser.add_argument("--torch", metavar="BUILD", help="auto, default, none, cpu, or the likes of cu130 and rocm7.0")
    parser.add_argument("--cluster", action="store_true", help="backend: with Ray, for several machines and GPUs")
    parser.add_argument("--repair", action="store_true", help="check every file, even where all is marked complete")
    parser.add_argument("--for-python", metavar="3.x", help="extension: for a Blender that was built on this Python")
    parser.add_argument("--split-platforms", action="store_true", help="extension: a zip for each kind of machine too")
    parser.add_argument("--json", action="store_true", help="tell of progress in lines of JSON")
    options, rest = parser.parse_known_args()
    if rest and options.command not in ("demo", "test"):
        parser.error(f"{options.command} takes no {' '.join(rest)}")
    as_json = options.json
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a child is stopped too
    try:
        if options.command == "extension":
            wanted = ("--for-python", options.for_python) if options.for_python else ()
            return extension(*wanted, *(["--split-platforms"] if options.split_platforms else [])) or 0
        if options.command == "doctor":
            return subprocess.call([sys.executable, str(LOCKS / "doctor.py")], env=environment())
        env = prepare(options)
        if options.command == "backend":
            return backend(env) or 0
        if options.command == "test":
            extension("--wheels")
        # Tests go to as many processes as there are cores, a file to one of them.
        module = {"demo": ["benchmarks.demo"], "test": ["pytest", "-n", "auto", "--dist", "loadfile"]}[options.command]
        return subprocess.call([str(env.python), "-m", *module, *rest], cwd=str(ROOT), env=environment())
    except (Problem, OSError) as problem:
        print(json.dumps({"error": str(problem)}) if as_json else f"\n{problem}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again: it goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
