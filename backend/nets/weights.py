"""Weights: found by engines, got by users once, and checked whenever one likes; nothing is ever downloaded unasked.

What must hold before a file counts stands in third_party/checkpoints.toml.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run import Run
from ..wire import UserError
from . import sources
from .manifest import Model, model_named, models, size_in_words
from .receipt import Installed, Receipt, only_one, weights_folder


def find_weights(name: str, folder: Path | None = None) -> Path:
    """The checkpoint of a model that is on this machine. Raises UserError, with what to do, when it is not."""
    return find_installed(name, folder).checkpoint


def find_installed(name: str, folder: Path | None = None) -> Installed:
    """The same with all files of the model, and the stamp that a capture gets."""
    model = model_named(name)
    found = Receipt(weights_folder(folder)).installed(model)
    if found:
        return found
    command = f"python -m backend weights get {name}"
    raise UserError(
        f"The weights of {model.title} are not on this machine ({size_in_words(model.size)}, {model.terms})",
        f"run: {command}, or {command} --from FILE with a file that you have",
    )


def check_installed(names: Iterable[str], folder: Path | None = None) -> None:
    """Raise one UserError for all models of these names that are not on this machine, with what to do."""
    receipt = Receipt(weights_folder(folder))
    missing = [model for model in map(model_named, names) if receipt.installed(model) is None]
    if len(missing) == 1:
        find_installed(missing[0].name, folder)
    if missing:
        told = [f"{m.title} ({size_in_words(m.size)}, {m.terms})" for m in missing]
        raise UserError(
            f"The weights of {' and '.join(told)} are not on this machine",
            f"run: python -m backend weights get {' '.join(m.name for m in missing)}",
        )


def get_weights(
    name: str,
    run: Run,
    accept: bool = False,
    folder: Path | None = None,
    source: Path | None = None,
    in_place: bool = False,
    offline: bool = False,
) -> Installed:
    """Make a model stand in the weights folder, checked and recorded; what is right already is not got again.

    It comes from `source`, a file or folder (copied, or with `in_place` only recorded where it is), else from the cache
    of huggingface_hub, else from where it is published. `accept` says that the user accepts the licence; without it,
    one that forbids commercial use must have been accepted before. Raises UserError, and Cancelled when the run is.
    """
    model, folder = model_named(name), weights_folder(folder)
    new_terms = needs_acceptance(model, folder)
    if new_terms and not accept:
        raise UserError(
            f"{model.title} comes under {model.licence.name}: {model.licence.summary}",
            f"read {model.licence.url}, and say --accept-licence if you accept it",
        )
    with only_one(folder), run.stage(stage_of(model)):
        receipt = Receipt(folder)
        if new_terms:
            receipt.accept(model)
        if source is not None:
            got = sources.from_disk(model, Path(source).expanduser().absolute(), folder, in_place, run)
        elif standing := _still_right(receipt, model, run):
            return standing
        else:
            got = sources.from_cache(model, run) or sources.from_publisher(model, folder, offline, run)
        receipt.record(model, got.source, got.commit, got.files)
        return receipt.installed(model)


def needs_acceptance(model: Model, folder: Path | None = None) -> bool:
    """Whether the user must accept the model's licence before it is got: once, if it forbids commercial use."""
    return not model.licence.commercial_use and not Receipt(weights_folder(folder)).accepted_at(model)


def stage_of(model: Model) -> str:
    """The one stage of getting a model, for a run's plan."""
    return f"Getting {model.title}"


@dataclass(frozen=True)
class Finding:
    """What `verify_weights` saw of one file."""

    model: str
    path: Path
    good: bool
    words: str


def verify_weights(run: Run, names: tuple[str, ...] = (), folder: Path | None = None) -> Iterator[Finding]:
    """Hold every file that was got, or those of some models, against its checksum in the receipt.

    Raises UserError for a model that was named and never got.
    """
    receipt = Receipt(weights_folder(folder))
    for model in [model_named(name) for name in names] or models().values():
        recorded = receipt.recorded(model)
        if names and not recorded:
            raise UserError(f"{model.title} was not got yet", f"run: python -m backend weights get {model.name}")
        for name, (path, noted) in recorded.items():
            fault = _fault(model, name, path, noted, run)
            right = f"{size_in_words(noted['bytes'])}, {noted['checked_by']}"
            yield Finding(model.name, path, not fault, fault or right)


def _fault(model: Model, name: str, path: Path, noted: Mapping[str, Any], run: Run) -> str:
    if not path.is_file():
        return "is not there any more"
    if (size := path.stat().st_size) != noted["bytes"]:
        return f"has {size} bytes instead of {noted['bytes']}"
    if sources.sha256_of(path, run) != noted["sha256"]:
        return "has another checksum than it had when it was got"
    try:
        sources.judge(model, path, name, noted["checkpoint"])
    except UserError as error:
        return error.message
    return ""


def _still_right(receipt: Receipt, model: Model, run: Run) -> Installed | None:
    """The model as it stands, if every byte is right; damaged copies of ours are removed."""
    for name, (path, noted) in receipt.recorded(model).items():
        if _fault(model, name, path, noted, run):
            if not noted["path"]:
                path.unlink(missing_ok=True)
            return None
    return receipt.installed(model)
