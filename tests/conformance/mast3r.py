"""What is compared with MASt3R: a table of checks, each of which reads its part of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from . import mast3r_alignment, mast3r_graphs, mast3r_matching, mast3r_misc, mast3r_network
from .mast3r_scene import of_scene
from .rows import Check, Row, unchecked

#: Files that some check reads, or that are there for people.
KNOWN = re.compile(
    r"README\S*|model_small_(weights\.npz|io\.npz|config\.json)|model_full_formula\.npz|published_keys\.json"
    r"|loader\.npz|loader_table\.json|fastnn\.npz|coarse_to_fine\.npz|ga_(inputs|outputs|scene_gt)\.npz"
    r"|ga_summary\.json|misc\.(npz|json)"
)


def other_files(folder: Path) -> Iterator[Row]:
    """Files that no check reads."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not KNOWN.fullmatch(name):
            yield unchecked(name, "no check reads it")


#: To add a part, write a function that takes the folder and yields rows (`rows.Check`), and give it a line.
CHECKS: dict[str, Check] = {
    "loading": mast3r_network.check_loading,
    "published-keys": mast3r_network.check_published_keys,
    "network-small": mast3r_network.check_small,
    "heads": mast3r_network.check_heads,
    "network-full": mast3r_network.check_full_size,
    "matching": mast3r_matching.check_matching,
    "coarse-to-fine": mast3r_matching.check_windows,
    "scene-graphs": mast3r_graphs.check_graphs,
    "retrieval": mast3r_graphs.check_retrieval,
    "alignment-setup": of_scene("alignment setup", mast3r_alignment.setup),
    "alignment-losses": of_scene("alignment losses", mast3r_alignment.first_losses),
    "alignment-runs": of_scene("alignment runs", mast3r_alignment.whole_runs),
    "alignment-results": of_scene("alignment results", mast3r_alignment.results),
    "own-solver": of_scene("own solver", mast3r_alignment.own_solver),
    "pose": mast3r_misc.check_pose,
    "triangulation": mast3r_misc.check_triangulation,
    "training-criteria": mast3r_misc.check_criteria,
    "localisation-figures": mast3r_misc.check_localisation,
    "misc-others": mast3r_misc.others,
    "other-files": other_files,
}
