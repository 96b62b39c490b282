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
    if not CHECKPOINTS.is_file():
        print("No weights are needed: the classical engine works without any")
        return 0
    for name, entry in tomllib.loads(CHECKPOINTS.read_text(encoding="utf-8")).items():
        print(f"{name:<28} {entry['bytes'] / 1e6:8.0f} MB  {entry['licence']}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Compare a capture with the truth of its clip."""
    from ..evaluate import main_evaluate

    print(main_evaluate(options.capture, options.truth))
    return 0
