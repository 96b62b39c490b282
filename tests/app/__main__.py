"""A session in the real application, from installing the zip to opening the file again: python -m tests.app

    python -m tests.app --blender /path/to/blender [--pictures docs/images/manual]

Blender runs in a window with a fresh user folder: the zip is built for its Python and installed by Blender's own
command, then `session.py` does in it what an artist does, and takes a picture of each step with ImageMagick's
`import`. It needs a screen (DISPLAY, or one that the command brings along) and the environment of
`install_deps.py test`, whose Python runs this and the backend. Prints what was measured; fails when a step fails or
Blender's console shows anything but Kinora's own lines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
#: Below the checkout, so that a Blender in a container that sees the checkout sees it too.
WORK = ROOT / "build" / "app"
#: What Blender itself prints in a run where all is well: versions, files read and saved, and the platform's complaints.
BLENDERS_OWN = re.compile(
    r"""^\s*$|^Blender\ \d|^Blender\ quit|^Read\ blend:|^Info:\ |^Saved:
    |^\d\d:\d\d[.:]\d+\s+(blend|reports)\s+\|\ (Read|Saved|Writing|Preferences)
    |Could\ not\ get\ a\ list\ of\ mounted\ file-systems|^Writing:|XDG|libEGL|MESA|Vulkan|XIM|XInput|audio
    |^STATUS|^Repository\ data:|^Package\ installed|^add-on|^Installing""",
    re.VERBOSE | re.IGNORECASE,
)
#: No splash, and no file that Blender saves by itself every two minutes: it stands still meanwhile, as gaps would show.
PREFERENCES = (
    "import bpy; p = bpy.context.preferences; p.view.show_splash = False; "
    "p.filepaths.use_auto_save_temporary_files = False; bpy.ops.wm.save_userpref()"
)
#: Parts of pictures that are worth keeping: left, top, right, bottom.
CROPS = {"preferences": (176, 275, 1310, 550), "backends": (176, 275, 1310, 595)}
OUR_LINE = re.compile(r"^(\d\d:\d\d:\d\d )?kinora ", re.IGNORECASE)


def blender(command: list[str], *arguments: object) -> str:
    """Run Blender to its end and return what it printed. Raises SystemExit when it fails or hangs."""
    environ = {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(WORK / "blender"),
        "KINORA_HOME": str(WORK / "kinora"),
        "OMP_NUM_THREADS": "1",
    }
    words = [*command, *map(str, arguments)]
    done = subprocess.run(words, env=environ, cwd=ROOT, text=True, capture_output=True, timeout=1500)
    if done.returncode:
        raise SystemExit(
            f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout + done.stderr


def python_of(command: list[str]) -> str:
    """The version of the Python inside this Blender, as 3.13."""
    said = blender(command, "--background", "--factory-startup", "--python-expr", "import sys; print(sys.version)")
    return re.search(r"(?m)^(3\.\d+)\.", said).group(1)


def archive_for(python: str) -> Path:
    """The extension's zip for this Python, built now."""
    official = python in ("3.11", "3.13")
    wanted = [] if official else ["--for-python", python]
    subprocess.run([sys.executable, "install_deps.py", "extension", *wanted], cwd=ROOT, check=True, capture_output=True)
    (archive,) = (ROOT / "dist" / ("" if official else f"python{python}")).glob("kinora-?.?.?.zip")
    return archive


def strange(output: str) -> list[str]:
    """The lines of Blender's console that are neither Blender's own nor Kinora's."""
    return [line for line in output.splitlines() if not BLENDERS_OWN.search(line) and not OUR_LINE.match(line)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.app", description=__doc__.splitlines()[0])
    parser.add_argument("--blender", default="blender", help="the command that starts Blender")
    parser.add_argument("--pictures", type=Path, help="keep small copies of the pictures in this folder")
    parser.add_argument("--clip", type=Path, default=ROOT / "benchmarks" / "demo_clip" / "clip.mp4")
    parser.add_argument("--steps", help="only these steps of session.py, for example 'start drop unseen'")
    options = parser.parse_args()
    if options.steps:
        os.environ["KINORA_APP_STEPS"] = options.steps
    command = shlex.split(options.blender)

    shutil.rmtree(WORK, ignore_errors=True)
    for name in ("blender", "kinora", "shot", "pictures"):
        (WORK / name).mkdir(parents=True)
    shutil.copy(options.clip, WORK / "shot" / "courtyard.mp4")
    pointer = {"python": sys.executable, "repo": str(ROOT)}
    (WORK / "kinora" / "backend.json").write_text(json.dumps(pointer), encoding="utf-8")

    archive = archive_for(python_of(command))
    print(f"zip: {archive.relative_to(ROOT)}, {archive.stat().st_size / 1e6:.1f} MB", flush=True)
    said = blender(command, "--command", "extension", "install-file", "-r", "user_default", "--enable", archive)
    consoles = {"install": said}
    blender(command, "--background", "--python-expr", PREFERENCES)
    runs = ("session",) if options.steps else ("session", "reopen")
    for step in runs:
        opened = [WORK / "shot" / "shot.blend"] if step == "reopen" else []
        consoles[step] = blender(
            command, "--window-geometry", 0, 0, 1600, 900, *opened, "--python", HERE / f"{step}.py"
        )
        (WORK / f"{step}.log").write_text(consoles[step], encoding="utf-8")
    for name in runs:
        report = json.loads((WORK / f"{name}.json").read_text(encoding="utf-8"))
        for line in report["lines"]:
            print(line)
        if report["failed"]:
            print(f"FAILED: {report['failed']}")
            return 1
    odd = [f"{name}: {line}" for name, output in consoles.items() for line in strange(output)]
    if odd:
        print("Blender's console shows what it should not:", *odd[:40], sep="\n  ")
    if options.pictures:
        keep_small(options.pictures)
    return int(bool(odd))


def keep_small(folder: Path) -> None:
    """Copies of the pictures for the manual, 1200 pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((WORK / "pictures").glob("*.png")):
        picture = Image.open(path).convert("RGB").crop(CROPS.get(path.stem))
        picture.thumbnail((1200, 1200))
        picture.save(folder / f"{path.stem}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
