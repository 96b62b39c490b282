"""Registering leaves nothing behind, and the add-on works under any package name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import bpy
import pytest

import blender_addon
from blender_addon.ui import session
from blender_addon.wire.errors import UserError

ROOT = Path(blender_addon.__file__).parent


def traces() -> set[str]:
    """Everything of ours that Blender knows of."""
    found = {name for name in dir(bpy.types) if "KINORA" in name}
    found |= {name for name in dir(bpy.ops.kinora) if not name.startswith("_")}
    found |= {f"menu {f}" for f in bpy.types.TOPBAR_MT_file_import.draw._draw_funcs if "blender_addon" in f.__module__}
    found |= {"scene property"} if hasattr(bpy.types.Scene, "kinora") else set()
    found |= {"timer"} if bpy.app.timers.is_registered(session._tick) else set()
    return found


def test_registering_twice_leaves_nothing_behind():
    for _ in range(2):
        blender_addon.register()
        session.wake()
        assert {"timer", "scene property", "KINORA_PT_main", "KINORA_OT_reconstruct"} <= traces()
        blender_addon.unregister()
        assert traces() == set()


def test_importing_the_package_needs_no_blender():
    """The backend imports blender_addon.wire, so the package itself must import nothing."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in imported)


@pytest.mark.slow
def test_works_as_an_extension_of_a_repository(tmp_path):
    """Blender loads an extension as bl_ext.<repository>.kinora: no import may name `blender_addon`."""
    package = tmp_path / "bl_ext" / "some_repository"
    package.mkdir(parents=True)
    (package / "kinora").symlink_to(ROOT, target_is_directory=True)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.modules["blender_addon"] = None  # importing it fails
import importlib
kinora = importlib.import_module("bl_ext.some_repository.kinora")
kinora.register()
from bl_ext.some_repository.kinora.ui.preferences import ADDON_ID
assert ADDON_ID == "bl_ext.some_repository.kinora", ADDON_ID
import bpy
assert bpy.types.KINORA_PT_main
from bl_ext.some_repository.kinora import client, launcher
kinora.unregister()
print("fine", flush=True)
import os; os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_preferences_choose_the_backend(tmp_path):
    from blender_addon.ui.preferences import BackendChoice, backend_choice

    assert backend_choice(bpy.context) == BackendChoice()
    bpy.ops.preferences.addon_enable(module="blender_addon")
    try:
        preferences = bpy.context.preferences.addons["blender_addon"].preferences
        preferences.backend_folder = str(tmp_path)
        assert backend_choice(bpy.context) == BackendChoice(folder=tmp_path)
        preferences.backend, preferences.remote_backend = "REMOTE", "gpu"
        choice = backend_choice(bpy.context)
        assert choice.remote
        with pytest.raises(UserError, match="No backend on another computer is chosen; paste the pairing code"):
            choice.check()
    finally:
        bpy.ops.preferences.addon_disable(module="blender_addon")
