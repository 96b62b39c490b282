"""Kinora, Python, its packages, and the weights of networks."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from .. import __version__
from ..nets.manifest import models
from ..nets.receipt import Receipt, weights_folder
from ..server.process import REPO
from ..wire import UserError
from .finding import Finding, note, ok, wrong
from .libraries import Libraries

NEEDED = ("numpy", "opencv-python-headless", "pycolmap", "imageio", "av", "pyzmq", "trimesh")
INSTALL = "run 'python3 install_deps.py backend'"
REPAIR = "run 'python3 install_deps.py backend --repair'"


def packages(libraries: Libraries) -> Iterator[Finding]:
    """Which versions there are, and which of them do not load."""
    yield ok("kinora", f"{__version__} in {REPO}")
    where = f"{platform.python_version()} at {sys.executable}"
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield ok("python", where) if fits else wrong("python", f"{where}; 3.11 to 3.13 is needed", INSTALL)
    told = libraries.told
    for name in NEEDED:
        found = _version(name)
        more = f" with {told['ffmpeg']} of FFmpeg" if name == "av" and told["ffmpeg"] else ""
        yield ok(name, found + more) if found else wrong(name, "missing", INSTALL)
    for name, why in told["failed"].items():
        if name != "torch":  # compute.py tells
            yield wrong(name, f"does not load: {why}", REPAIR)


def weights() -> Iterator[Finding]:
    """Which weights are here, whether they were held against a checksum, and what their licence allows."""
    folder = weights_folder()
    try:
        receipt = Receipt(folder)
    except UserError as error:
        yield wrong("weights", error.message, error.hint)
        return
    here = [model for model in models().values() if receipt.recorded(model)]
    if not here:
        yield ok("weights", "none; the classical engine needs none ('weights list' says what there is)")
    for model in here:
        if receipt.installed(model) is None:
            lost = next(path for path, _ in receipt.recorded(model).values() if not _whole(receipt, model, path))
            yield wrong("weights", f"{model.name}: {lost} is missing or cut", f"run 'weights get {model.name}'")
            continue
        checked = sorted({file["checked_by"] for _, file in receipt.recorded(model).values()})
        words = f"{model.name}: here, checked by {', '.join(checked)}; {model.licence.name}"
        free = model.licence.commercial_use
        yield ok("weights", words) if free else note("weights", f"{words}, which forbids commercial use")


def _whole(receipt: Receipt, model, path) -> bool:
    sizes = {place: file["bytes"] for place, file in receipt.recorded(model).values()}
    return path.is_file() and path.stat().st_size == sizes[path]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
