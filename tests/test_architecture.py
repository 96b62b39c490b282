"""The import rules of docs/architecture.md, as a table: which part may never import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKEND_THINGS = ("backend", "torch", "torchvision", "pycolmap", "cv2")
#: All of sparse alignment but what its views are, which matching is asked about.
SPARSE_BUT_VIEWS = sorted(
    f"backend.sparse.{path.stem}"
    for path in (ROOT / "backend" / "sparse").glob("*.py")
    if path.stem not in ("__init__", "views")
)

#: (files, what they must never import, even indirectly by name)
NEVER = [
    ("blender_addon/wire", ("bpy", "zmq", *BACKEND_THINGS)),
    ("blender_addon/client.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/launcher.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/installer.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/backends.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/orders.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/events.py", ("bpy", "zmq", *BACKEND_THINGS)),
    ("blender_addon/job.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/link.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/live.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/transfer.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/partial.py", ("bpy", *BACKEND_THINGS)),
    ("blender_addon/scene", ("blender_addon.client", "blender_addon.launcher", "blender_addon.ui", "zmq")),
    ("blender_addon", BACKEND_THINGS),
    ("backend", ("bpy", "mathutils", "tests", "benchmarks")),
    (
        "backend/geometry",
        ("backend.nets", "backend.clip", "backend.engines", "backend.export", "backend.server", "imageio", "av"),
    ),
    (
        "backend/align",
        ("backend.nets", "backend.clip", "backend.footage", "backend.engines", "backend.export", "backend.server"),
    ),
    (
        "backend/sparse",
        ("backend.nets", "backend.clip", "backend.footage", "backend.engines", "backend.export", "backend.server"),
    ),
    (
        "backend/matching",
        (
            "backend.nets",
            *SPARSE_BUT_VIEWS,
            "backend.clip",
            "backend.footage",
            "backend.engines",
            "backend.export",
            "backend.server",
        ),
    ),
    (
        "backend/streaming",
        ("backend.nets", "backend.clip", "backend.footage", "backend.engines", "backend.export", "backend.server"),
    ),
    ("backend/nets", ("backend.clip", "backend.engines", "backend.export", "backend.pipeline", "backend.server")),
    ("backend/monst3r", ("backend.engines", "backend.export", "backend.server", "backend.mast3r")),
    ("backend/mast3r", ("backend.engines", "backend.export", "backend.server")),
    ("backend/point3r", ("backend.engines", "backend.export", "backend.server", "backend.mast3r")),
    ("backend/localise", ("backend.engines", "backend.export", "backend.server")),
    ("backend/metric", ("backend.engines", "backend.export", "backend.server")),
    ("backend/engines", ("backend.server", "backend.export")),
    ("backend/classical", ("torch", "backend.nets", "backend.engines", "backend.server", "backend.export")),
    ("backend/refinement", ("torch", "backend.nets", "backend.engines", "backend.export", "backend.server")),
    ("backend/refine.py", ("torch", "backend.nets", "backend.engines", "backend.export", "backend.server")),
    ("backend/device.py", ("backend.nets", "backend.clip", "backend.engines")),
    ("backend/known_cameras.py", ("backend.clip", "backend.engines")),
    ("backend/footage", ("backend.engines", "backend.server", "backend.export")),
    ("backend/estimate.py", ("torch", "backend.engines", "backend.server")),
    ("backend/monst3r/cost.py", ("torch", "backend.engines", "backend.server")),
    ("backend/mast3r/cost.py", ("torch", "backend.engines", "backend.server")),
    ("backend/point3r/cost.py", ("torch", "backend.engines", "backend.server")),
    ("backend/metric/cost.py", ("torch", "backend.engines", "backend.server")),
    ("backend/mast3r/choices.py", ("torch", "backend.engines", "backend.server")),
    ("backend/export", ("backend.engines", "backend.clip", "backend.footage", "backend.server", "backend.pipeline")),
    ("backend/server", ("backend.cluster", "ray")),
    (
        "backend/cluster",
        ("torch", "av", "imageio", "cv2", "pycolmap", "backend.pipeline", "backend.clip", "backend.engines"),
    ),
    ("backend/server/broker.py", ("torch", "av", "imageio", "cv2", "pycolmap", "backend.pipeline", "backend.clip")),
]


def imports_of(path: Path) -> set[str]:
    """Absolute dotted names of everything that a file imports, wherever in the file it does so."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names.update([module, *(f"{module}.{alias.name}" for alias in node.names)])
    return names


def files_of(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


@pytest.mark.parametrize(("place", "forbidden"), NEVER, ids=[place for place, _ in NEVER])
def test_no_forbidden_import(place, forbidden):
    for path in files_of(place):
        for name in imports_of(path):
            for banned in forbidden:
                assert not f"{name}.".startswith(f"{banned}."), f"{path.relative_to(ROOT)} imports {name}"


def test_backend_reaches_the_addon_through_one_door():
    users = {
        p.relative_to(ROOT).as_posix()
        for p in files_of("backend")
        if any(n.startswith("blender_addon") for n in imports_of(p))
    }
    assert users == {"backend/wire.py"}


def test_pycolmap_comes_in_through_one_door():
    users = {p.relative_to(ROOT).as_posix() for p in files_of("backend") if "pycolmap" in imports_of(p)}
    assert users == {"backend/colmap.py"}


def test_ray_comes_in_through_one_door():
    users = {
        p.relative_to(ROOT).as_posix()
        for p in files_of("backend")
        if any(f"{name}.".startswith("ray.") for name in imports_of(p))
    }
    assert users == {"backend/cluster/ray_nodes.py"}


def test_engines_do_not_import_each_other():
    engines = [p for p in files_of("backend/engines") if p.name != "__init__.py"]
    entry_points = {f"backend.engines.{p.stem}" for p in engines if not p.stem.startswith("_")}
    for path in engines:
        assert not (imports_of(path) & entry_points - {f"backend.engines.{path.stem}"}), path.name


def test_the_rules_catch_an_offender(tmp_path):
    """The table itself is tested: a file that imports what it must not is seen."""
    offender = ROOT / "blender_addon" / "wire" / "_offender_for_test.py"
    try:
        offender.write_text("def f():\n    from ..client import Client\n    import bpy\n")
        assert {"bpy", "blender_addon.client"} <= imports_of(offender)
    finally:
        offender.unlink()
