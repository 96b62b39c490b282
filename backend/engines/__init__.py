"""Engines: each turns a clip into a capture by one method; this is their registry."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from ..clip import Clip
from ..run import Run
from ..wire import ENGINES, Capture, JobSettings, UserError


class Engine(Protocol):
    """What an engine is. `plan` lists its stages with their expected share of the time, for the progress bar."""

    plan: tuple[tuple[str, float], ...]

    def check(self, settings: JobSettings) -> None:
        """Raise UserError for what is missing before anything is begun, such as weights."""
        ...

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when it cannot be made honestly, never returns None."""
        ...


#: Engine name -> (module in this package, class). Modules load only when their engine is asked for.
REGISTRY: dict[str, tuple[str, str]] = {
    "classical": ("classical", "ClassicalEngine"),
    "monst3r": ("monst3r", "MonST3REngine"),
    "mast3r": ("mast3r", "MASt3REngine"),
    "point3r": ("point3r", "Point3REngine"),
    "localise": ("localise", "LocaliseEngine"),
}


def load_engine(name: str) -> Engine:
    """The engine of that name, ready to use."""
    if name not in REGISTRY:
        raise UserError(f"There is no engine '{name}'", f"choose one of {', '.join(ENGINES)}")
    module, cls = REGISTRY[name]
    return getattr(import_module(f".{module}", __package__), cls)()
