"""Tests touch no one's data: Kinora's folder and Blender's user folder are temporary ones, here and in every child."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

places = pytest.StashKey[Path]()
statuses = pytest.StashKey[int]()


def pytest_configure(config) -> None:
    """Before anything is imported, since Blender reads its variable when it starts."""
    place = config.stash[places] = Path(tempfile.mkdtemp(prefix="kinora-tests-"))
    os.environ["KINORA_HOME"] = str(place / "kinora")
    os.environ["BLENDER_USER_RESOURCES"] = str(place / "blender")
    # Torch's threads wait for each other by spinning: on tensors as small as a test's, and cores that are shared, that
    # is most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    (place / "blender").mkdir()


def pytest_sessionfinish(session, exitstatus) -> None:
    session.config.stash[statuses] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config) -> None:
    """Tidy up, and where Blender was loaded leave without its goodbye: it has hung, and prints below the summary."""
    shutil.rmtree(config.stash[places], ignore_errors=True)
    if "bpy" in sys.modules and statuses in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[statuses])
