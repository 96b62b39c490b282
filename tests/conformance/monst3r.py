"""What is compared with MonST3R: a table of checks, each of which reads its part of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from . import alignment, inputs, network
from .rows import Check, Row, unchecked

#: Files that some check reads, or that are there for people.
KNOWN = re.compile(
    r"README\S*|net/\w+\.(json|npz|safetensors)|pairs/(pairs|counts)\.json"
    r"|preprocess/(preprocess\.json|subsample9\.npz|full_u8\.npz|[^/]+\.(png|jpe?g|heic|heif))"
    r"|ga/(scene|pairs|flow|upstream_\w+)\.npz|ga/metrics\.json",
    re.IGNORECASE,
)


def other_files(folder: Path) -> Iterator[Row]:
    """Files that no check reads; answers of a network whose configuration is not there are among them."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        answers = name.startswith("net/") and path.suffix == ".npz"
        configuration = path.parent / f"{path.stem.partition('__')[0]}.json"
        if not KNOWN.fullmatch(name) or (answers and not configuration.is_file()):
            yield unchecked(name, "no check reads it")


#: To add a part, write a function that takes the folder and yields rows (`rows.Check`), and give it a line.
CHECKS: dict[str, Check] = {
    "preprocessing": inputs.check_preprocessing,
    "pairs": inputs.check_pairs,
    "network": network.check,
    "pair-solver": alignment.each_run("pair solver", alignment.pair_solver),
    "initialisation": alignment.each_run("initialisation", alignment.initialisation),
    "losses": alignment.each_run("losses", alignment.losses),
    "first-steps": alignment.each_run("first steps", alignment.first_steps),
    "cleaning": alignment.each_run("cleaning", alignment.cleaning),
    "other-arrays": alignment.each_run("other arrays", alignment.others),
    "other-files": other_files,
}
