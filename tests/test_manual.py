"""The manual names every operator with the words of its tooltip, and its pictures are there."""

import re
from pathlib import Path

import bpy
import pytest

import blender_addon

ROOT = Path(__file__).resolve().parent.parent
MANUAL = ROOT / "docs" / "manual.md"


def rows() -> list[str]:
    """The table of operators, as the add-on itself describes them."""
    found = []
    for name in sorted(dir(bpy.ops.kinora)):
        about = getattr(bpy.ops.kinora, name).get_rna_type()
        names = [p.identifier for p in about.properties]
        names = [n for n in names if n != "rna_type" and not n.startswith(("filter_", "remove_"))]
        what = about.description.split(". ")[0].replace("\n", " ").rstrip(".")
        found.append(f"| `kinora.{name}({', '.join(names)})` | {what} |")
    return found


@pytest.fixture
def registered():
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    blender_addon.register()
    yield
    blender_addon.unregister()


def test_every_operator_is_in_the_manual(registered):
    text = MANUAL.read_text(encoding="utf-8")
    missing = [row for row in rows() if row not in text]
    assert not missing, "put these rows into docs/manual.md:\n" + "\n".join(missing)


def test_no_row_of_the_manual_is_out_of_date(registered):
    table = [line for line in MANUAL.read_text(encoding="utf-8").splitlines() if line.startswith("| `kinora.")]
    assert sorted(table) == sorted(rows())


def test_the_pictures_are_there():
    names = re.findall(r"\]\((images/[^)]+)\)", MANUAL.read_text(encoding="utf-8"))
    assert names
    assert all((MANUAL.parent / name).is_file() for name in names)
