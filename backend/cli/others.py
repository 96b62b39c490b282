"""The small commands: `export`, `engines`."""

from __future__ import annotations

import argparse

from ..wire import ENGINES, UserError, read_capture


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
