"""What is compared with MonST3R: a table of checks, each of which reads its part of the folder."""

from __future__ import annotations

from . import alignment, inputs, network
from .rows import Check

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
}
