"""`docs/architecture.md` against the tree: what it names exists, and its import rules are those that are tested."""

import re

import pytest

from .test_architecture import NEVER, ROOT, SPARSE_BUT_VIEWS

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Places that the page names before anything has to be there.
TO_COME: set[str] = set()


def test_every_place_it_names_exists():
    named = set(re.findall(r"`((?:blender_addon|backend|tests|benchmarks|third_party)/[\w/.]*)`", PAGE))
    named |= set(re.findall(r"\]\((\w+\.md)\)", PAGE))
    assert len(named) > 20
    missing = {n for n in named - TO_COME if not (ROOT / n).exists() and not (ROOT / "docs" / n).exists()}
    assert not missing


@pytest.mark.parametrize(("place", "forbidden"), NEVER, ids=[place for place, _ in NEVER])
def test_every_rule_is_on_the_page(place, forbidden):
    (row,) = [
        line for line in PAGE.splitlines() if line.startswith("|") and line.count("|") == 3 and rules(line, place)
    ]
    told = row + next(line for line in PAGE.splitlines() if line.startswith("| `blender_addon` |"))
    for name in forbidden:
        word = WORDS.get(name, name)
        assert word in told, f"{place} never imports {word}"


def rules(line: str, place: str) -> bool:
    """Whether a row of the table of rules is about a place."""
    table = PAGE[PAGE.index("## Who may import whom") : PAGE.index("## Conventions")]
    return line in table and f"`{place}`" in line.split("|")[1]


#: What the page calls a module, where it does not use its name.
WORDS = dict.fromkeys(SPARSE_BUT_VIEWS, "`backend.sparse` but for its `views`") | {
    "backend": "the backend",
    "backend.nets": "networks",
    "backend.clip": "clips",
    "backend.engines": "engines",
    "backend.export": "exports",
    "backend.server": "the server",
    "backend.footage": "footage",
    "backend.pipeline": "the pipeline",
    "blender_addon.client": "client",
    "blender_addon.launcher": "launcher",
    "blender_addon.ui": "ui",
}
