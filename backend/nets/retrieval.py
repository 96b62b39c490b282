"""MASt3R's published retrieval files: a whitening and a codebook, read without running anything in them.

Facts sheet mast3r.md, section 3.7.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..sparse.retrieval import Codebook, Whitening
from ..wire import UserError
from .checkpoint import read_checkpoint

#: What an array in a pickle is made by, in old and new versions of NumPy; nothing else is let in.
_ARRAYS = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_WHITENING = ("prewhiten.m", "prewhiten.p")
_CHECKPOINT_END, _CODEBOOK_END = "_retrieval_trainingfree.pth", "_retrieval_codebook.pkl"


def load_codebook(checkpoint: Path, codebook: Path | None = None) -> Codebook:
    """The whitening of a `*_retrieval_trainingfree.pth` and the words of `codebook`, by default the `.pkl` beside it.

    For the tokens of MASt3R's encoder: their width is the whitening's. Raises UserError for files that are not there,
    damaged, not these, or would run code of their own.
    """
    checkpoint = Path(checkpoint)
    if codebook is None:
        codebook = checkpoint.with_name(checkpoint.name.replace(_CHECKPOINT_END, _CODEBOOK_END))
    if codebook == checkpoint or not codebook.is_file():
        raise UserError(f"The codebook of {checkpoint.name} is missing", "put its *_codebook.pkl beside it")
    tensors = read_checkpoint(checkpoint).tensors
    if set(tensors) != set(_WHITENING):
        found = ", ".join(sorted(tensors)[:3])
        raise UserError(
            f"{checkpoint.name} is not a whitening alone: it holds {found}", "choose the *_retrieval_trainingfree.pth"
        )
    mean, matrix = (tensors[name].double() for name in _WHITENING)
    words = torch.from_numpy(_words(codebook))
    if mean.numel() != matrix.shape[0] or matrix.shape[1:] != words.shape[1:]:
        sizes = f"{mean.numel()}, {list(matrix.shape)} and {list(words.shape)}"
        raise UserError(f"{checkpoint.name} and {codebook.name} do not belong together ({sizes})", "get both again")
    return Codebook(Whitening(mean.flatten(), matrix), words)


class _ArraysOnly(pickle.Unpickler):
    """Plain values, containers and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


class _Refused(Exception):
    pass


def _words(path: Path) -> np.ndarray:
    """(K, D) float32 of `state` `centroids`."""
    get = "get the file from its publisher"
    try:
        with open(path, "rb") as file:
            content = _ArraysOnly(file).load()
    except _Refused as error:
        raise UserError(f"{path.name} was not opened: it wants to run {error}", get) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path.name} is damaged ({str(error)[:120]})", "download it again") from error
    state = content.get("state") if isinstance(content, Mapping) else None
    words = state.get("centroids") if isinstance(state, Mapping) else None
    if not isinstance(words, np.ndarray) or words.ndim != 2 or words.dtype.kind != "f" or not np.isfinite(words).all():
        raise UserError(f"{path.name} holds no codebook", get)
    return words.astype(np.float32)
