"""What a page of docs/ says in its tables, and which options the command line has to answer with."""

from __future__ import annotations

import argparse

from backend.__main__ import parser


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading, without its head."""
    section = page.split(f"\n{heading}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def known_options(engine: str) -> set[str]:
    """The options of every command, with this engine."""
    found = set()
    waiting = [parser(["reconstruct", "--engine", engine])]
    while waiting:
        for action in waiting.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return found
