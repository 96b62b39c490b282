"""What is compared with Point3R: a table of checks, each of which reads its part of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from . import point3r_network, point3r_units
from .rows import Check, Row, unchecked

#: Files that some check reads, or that are there for people.
KNOWN = re.compile(
    r"README\S*|tiny_(dpt|linear)\.json|tiny_dpt\.safetensors|tiny_linear_head\.safetensors"
    r"|tiny_(dpt|linear)_\w+\.npz|\w+_hash\.(json|npz)|full512_keys\.txt"
    r"|unit_(rope3d|rope2d|fusion|post|camera|preprocess)\.npz"
)


def other_files(folder: Path) -> Iterator[Row]:
    """Files that no check reads."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not KNOWN.fullmatch(name):
            yield unchecked(name, "no check reads it")


#: To add a part, write a function that takes the folder and yields rows (`rows.Check`), and give it a line.
CHECKS: dict[str, Check] = {
    "published-keys": point3r_network.check_keys,
    "streams": point3r_network.check_streams,
    "formula-networks": point3r_network.check_formula,
    **point3r_units.CHECKS,
    "other-files": other_files,
}
