"""Tests of the importer run in a real Blender, each in an empty file."""

import pytest

bpy = pytest.importorskip("bpy")


@pytest.fixture(autouse=True)
def empty_file():
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def scene():
    return bpy.context.scene
