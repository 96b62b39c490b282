"""The small commands: `export`, `engines`, `weights`, `evaluate`."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from ..wire import ENGINES, UserError, read_capture

CHECKPOINTS = Path(__file__).resolve().parents[2] / "third_party" / "checkpoints.toml"


def export(options: argparse.Namespace) -> int:
    """Write a capture in another format."""
    from ..export import FORMATS

    if options.format not in FORMATS:
        raise UserError(f"There is no format '{options.format}'", f"choose one of {', '.join(FORMATS)}")
    print(FORMATS[options.format](read_capture(options.capture), options.out.absolute()))
    return 0


def engines(options: argparse.Namespace) -> int:
    """List the engines with their terms."""
    for engine in ENGINES.values():
        terms = "commercial use allowed" if engine.commercial_use else "no commercial use"
        print(f"{engine.name:<12} {engine.description} ({engine.licence}; {terms})")
    return 0


def weights(options: argparse.Namespace) -> int:
    """List the weights that engines need, with size and terms."""
    entries = tomllib.loads(CHECKPOINTS.read_text(encoding="utf-8"))
    if not entries:
        print("No weights are needed: the classical engine works without any")
    for name, entry in entries.items():
        terms = "commercial use allowed" if entry["commercial_use"] else "no commercial use"
        print(f"{name:<24} {entry['engine']:<12} {entry['bytes'] / 1e6:8.0f} MB  {entry['licence']}; {terms}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Compare a capture with the truth of its clip."""
    from ..evaluate import main_evaluate

    print(main_evaluate(options.capture, options.truth))
    return 0
