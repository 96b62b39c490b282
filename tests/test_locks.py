"""The locks pin everything, agree with each other and with the project, and name no place to fetch from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_pins_everything_and_names_no_host(path):
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    requirements = re.findall(r"(?m)^[a-zA-Z].*$", text)
    assert requirements
    assert all(re.match(r"[a-z0-9-]+==\S+", line) for line in requirements)
    if path.stem != "torch-index":  # another index's files have other hashes
        assert all(line.endswith("\\") for line in requirements)


def test_the_locks_agree_with_each_other_and_with_the_project():
    seen: dict[tuple[str, str], str] = {}
    for path in LOCKS:
        if path.stem.startswith("extension"):  # goes into Blender, not into an environment
            continue
        for name, version, marker in re.findall(r"(?m)^([a-z0-9-]+)==(\S+)(.*?)\\?$", path.read_text(encoding="utf-8")):
            python = "".join(re.findall(r"python_full_version [<>=!]+ '[\d.*]+'", marker))
            assert seen.setdefault((name, python), version) == version, f"{name} in {path.name}"
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    for group, wanted in groups.items():
        lock = (ROOT / "requirements" / f"{group}.txt").read_text(encoding="utf-8")
        for requirement in wanted:
            name, _, version = requirement.partition(";")[0].partition("==")
            assert re.search(rf"(?m)^{re.escape(name.replace('_', '-'))}=={re.escape(version)}", lock), requirement


def test_the_extra_for_clusters_is_the_locked_group():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["optional-dependencies"]["cluster"] == project["dependency-groups"]["cluster"]
