"""The published retrieval files: what they hold is used, and nothing in them is run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from backend.nets.retrieval import load_codebook
from backend.sparse.retrieval import Whitening, asmk_scores, strongest
from backend.wire import UserError

NAME = "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    whitening = {"prewhiten.m": rng.normal(size=(1, 8)), "prewhiten.p": rng.normal(size=(8, 8))}
    content = {"model": {k: torch.from_numpy(v) for k, v in whitening.items()}}
    torch.save(content, tmp_path / f"{NAME}_retrieval_trainingfree.pth")
    words = rng.normal(size=(20, 8)).astype(np.float32)
    write_codebook(tmp_path, {"type": "Codebook", "state": {"centroids": words}})
    return tmp_path, whitening, words


def write_codebook(folder, content, protocol: int = 4) -> None:
    (folder / f"{NAME}_retrieval_codebook.pkl").write_bytes(pickle.dumps(content, protocol))


def load(folder):
    return load_codebook(folder / f"{NAME}_retrieval_trainingfree.pth")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_likeness_is_by_the_files_whitening_and_words(files, protocol):
    folder, whitening, words = files
    write_codebook(folder, {"state": {"centroids": words}}, protocol)
    features = [torch.from_numpy(np.random.default_rng(n).normal(size=(40, 8)).astype(np.float32)) for n in range(3)]
    mean, matrix = (torch.from_numpy(whitening[name]) for name in ("prewhiten.m", "prewhiten.p"))
    white = Whitening(mean[0], matrix)
    scores = asmk_scores([strongest(white(f), 30)[0] for f in features], torch.from_numpy(words))
    np.testing.assert_allclose(load(folder).likeness(features, 30), (scores + scores.T) / 2)


def test_a_codebook_that_wants_to_run_something_is_not_opened(files):
    folder, *_ = files
    marker = folder / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    write_codebook(folder, {"state": {"centroids": Evil()}})
    with pytest.raises(UserError, match=r"wants to run \w+\.system"):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [[1], {"state": 3}, {"state": {"centroids": [[1.0]]}}, {"state": {"centroids": np.full((2, 8), np.nan)}}]
)
def test_what_is_no_codebook_is_refused(files, content):
    folder, *_ = files
    write_codebook(folder, content)
    with pytest.raises(UserError, match="holds no codebook"):
        load(folder)


def test_damaged_missing_and_mismatched_files_are_refused(files):
    folder, _, words = files
    write_codebook(folder, {"state": {"centroids": words[:, :5]}})
    with pytest.raises(UserError, match="do not belong together"):
        load(folder)
    codebook = folder / f"{NAME}_retrieval_codebook.pkl"
    codebook.write_bytes(codebook.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged"):
        load(folder)
    codebook.unlink()
    with pytest.raises(UserError, match=r"codebook of .* is missing"):
        load(folder)


def test_another_checkpoint_is_refused(files):
    folder, _, _ = files
    tensors = {"prewhiten.m": torch.zeros(1, 8), "projector.weight": torch.zeros(8, 8)}
    torch.save({"model": tensors}, folder / f"{NAME}_retrieval_trainingfree.pth")
    with pytest.raises(UserError, match=r"not a whitening alone.*projector"):
        load(folder)
