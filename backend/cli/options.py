"""Options: a command-line option for every field of a job's settings, made from the fields themselves."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from ..wire import ENGINES, ClipSettings, JobSettings, LensSettings, Settings, engine_info


def chosen_engine(arguments: Sequence[str]) -> str:
    """The engine that the arguments name: its settings decide which options there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", default=JobSettings().engine)
    engine = parser.parse_known_args(arguments)[0].engine
    return engine if engine in ENGINES else JobSettings().engine


def add_settings(
    parser: argparse.ArgumentParser, engine: str, leave: Sequence[str] = (), or_none: bool = False
) -> None:
    """Add an option for the engine and for every field of its job settings, but not those to `leave`.

    `or_none`: unless it is named, the engine is None.
    """
    default = None if or_none else engine
    words = "what reconstructs" + (" what is missing" if or_none else " (%(default)s)")
    parser.add_argument("--engine", choices=list(ENGINES), default=default, help=words)
    add_fields(parser, f"{ENGINES[engine].label} engine", ENGINES[engine].settings, leave)


def add_fields(
    parser: argparse.ArgumentParser, title: str, settings: type[Settings], leave: Sequence[str] = ()
) -> None:
    """Add an option for every field of a clip's and a lens's settings and of `settings`, but not those to `leave`."""
    for name, group in (("clip", ClipSettings), ("lens", LensSettings), (title, settings)):
        options = parser.add_argument_group(name)
        for f in dataclasses.fields(group):
            if f.name not in leave:
                _add(options, f)


def settings_of(options: argparse.Namespace) -> JobSettings:
    """The job settings that the options state. Raises UserError on a value outside its limits."""

    def group(cls):
        return cls(**{f.name: getattr(options, f.name) for f in dataclasses.fields(cls)})

    return JobSettings(
        engine=options.engine,
        clip=group(ClipSettings),
        lens=group(LensSettings),
        engine_settings=group(engine_info(options.engine).settings),
    )


def _add(options: argparse._ArgumentGroup, f: dataclasses.Field) -> None:
    meta, flag = f.metadata, "--" + f.name.replace("_", "-")
    limits = [
        f"{name} {meta[key]:g}" for key, name in (("minimum", "from"), ("maximum", "to")) if meta[key] is not None
    ]
    notes = ", ".join([*filter(None, [meta["unit"]]), *([" ".join(limits)] if limits else []), "default %(default)s"])
    words = f"{meta['help'].replace('%', '%%')} ({notes})"
    if isinstance(f.default, bool):
        options.add_argument(flag, action=argparse.BooleanOptionalAction, default=f.default, help=words)
    elif meta["choices"]:
        options.add_argument(flag, choices=[row[0] for row in meta["choices"]], default=f.default, help=words)
    else:
        metavar = {int: "N", float: "X", str: "TEXT"}[type(f.default)]
        options.add_argument(flag, type=type(f.default), default=f.default, metavar=metavar, help=words)
