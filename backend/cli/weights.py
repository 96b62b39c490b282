"""`weights`: list what engines need, get it once, and verify it whenever one likes."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..nets import weights as store
from ..nets.manifest import Model, model_named, models, size_in_words
from ..nets.receipt import Receipt, weights_folder
from ..run import Progress, Run
from ..wire import UserError


def weights(options: argparse.Namespace) -> int:
    """List, get or verify; the exit code."""
    return {"get": _get, "verify": _verify}.get(options.deed, _list)(options)


def _list(options: argparse.Namespace) -> int:
    folder = weights_folder(getattr(options, "folder", None))
    receipt = Receipt(folder)
    if getattr(options, "json", False):
        print(json.dumps([_row(model, receipt, folder) for model in models().values()]))
        return 0
    for model in models().values():
        count = model.parameters or model.about_parameters or 0
        here = "here" if receipt.installed(model) else "not here"
        print(
            f"{model.name:<18} {here:<9} {model.engine:<10} {size_in_words(model.size):>9} {count / 1e6:6.0f} M  "
            f"{model.terms}  ({model.source})"
        )
        if model.note:
            print(f"{'':<18} {model.note}")
    print(f"Folder: {folder}. The classical engine works without any of these.")
    return 0


def _row(model: Model, receipt: Receipt, folder: Path) -> dict[str, Any]:
    """A model for a program."""
    return {
        "name": model.name,
        "title": model.title,
        "engine": model.engine,
        "size": size_in_words(model.size),
        "note": model.note,
        "here": receipt.installed(model) is not None,
        "to_accept": store.needs_acceptance(model, folder),
        "page": model.page or "",  # where to get it by hand, when nothing downloads it
        "licence": model.licence.name,
        "terms": model.licence.summary,
        "url": model.licence.url,
        "commercial_use": model.licence.commercial_use,
    }


def _get(options: argparse.Namespace) -> int:
    chosen = [model_named(name) for name in options.names]
    if options.source and len(chosen) > 1:
        raise UserError("--from gives the files of one model", "get the models one by one")
    if options.in_place and not options.source:
        raise UserError("--in-place says what to do with a file of your own", "name it with --from")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request, with signed addresses
    for model in chosen:
        accept = _accepts(model, options)
        with _shown(model.title, model.size) as report:
            installed = store.get_weights(
                model.name,
                Run(report=report, plan=((store.stage_of(model), 1.0),)),
                accept=accept,
                folder=options.folder,
                source=options.source,
                in_place=options.in_place,
                offline=options.offline,
            )
        for name, path in installed.files.items():
            print(f"{path}  {installed.record['files'][name]['checked_by']}")
    return 0


def _accepts(model: Model, options: argparse.Namespace) -> bool:
    """Show the terms; whether the user accepts them, asked once on a terminal."""
    print(f"{model.title}  {size_in_words(model.size)}  {model.terms}", file=sys.stderr)
    print(f"  {model.licence.summary}; {model.licence.url}", file=sys.stderr)
    if model.note:
        print(f"  {model.note}", file=sys.stderr)
    if options.accept_licence or not store.needs_acceptance(model, options.folder) or not sys.stdin.isatty():
        return options.accept_licence
    print("Do you accept these terms? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    raise UserError(f"{model.title} was not got: its licence was not accepted")


def _verify(options: argparse.Namespace) -> int:
    good, count = True, 0
    for finding in store.verify_weights(Run(), tuple(options.names), options.folder):
        print(f"{'ok ' if finding.good else '!! '} {finding.model:<18} {finding.path}  {finding.words}")
        good, count = good and finding.good, count + 1
    if not count:
        print(f"No weights were got into {weights_folder(options.folder)} yet")
    if not good:
        print("run: python -m backend weights get NAME, which gets again what is wrong", file=sys.stderr)
    return 0 if good else 1


@contextmanager
def _shown(title: str, size: int) -> Iterator[Callable[[Progress], None]]:
    """A function that shows progress: a bar of bytes on a terminal, a line every tenth anywhere else."""
    with tqdm(total=size, unit="B", unit_scale=True, desc=title, leave=False, disable=not sys.stderr.isatty()) as bar:
        tenth = 0

        def report(progress: Progress) -> None:
            nonlocal tenth
            bar.n = int(progress.stage_fraction * size)
            bar.refresh()
            if bar.disable and int(10 * progress.stage_fraction) > tenth:
                tenth = int(10 * progress.stage_fraction)
                print(f"{title}: {10 * tenth} %", file=sys.stderr, flush=True)

        yield report
