"""Tests touch no one's data: Kinora's folder and Blender's user folder are temporary ones, here and in every child."""

from __future__ import annotations

import os
import shutil
import tempfile


def pytest_configure(config) -> None:
    """Before anything is imported, since Blender reads its variable when it starts."""
    place = tempfile.mkdtemp(prefix="kinora-tests-")
    os.environ["KINORA_HOME"] = os.path.join(place, "kinora")
    os.environ["BLENDER_USER_RESOURCES"] = os.path.join(place, "blender")
    os.makedirs(os.environ["BLENDER_USER_RESOURCES"])
    config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))
