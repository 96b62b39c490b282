"""Laws of mask refinement: what is one object, whose opinion counts where, and that SAM 2 is asked as it should be."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.nets.segment import (
    MOST_OBJECTS,
    PROMPTS_SEEN,
    _Pictures,
    _Turn,
    load_segmenter,
    prompt_frames,
    refine_masks,
    separate_objects,
)
from backend.run import Run
from backend.wire import Cancelled, UserError

imports_transformers = pytest.mark.slow  # which alone takes seconds


def boxes(frames: int, *places: tuple[int, int, int], size: tuple[int, int] = (60, 100)) -> np.ndarray:
    """(T, h, w) bool with a box of 12 x 16 for each (x, y, dx): it starts at x, y and moves by dx a frame."""
    masks = np.zeros((frames, *size), bool)
    for x, y, dx in places:
        for t in range(frames):
            masks[t, y : y + 12, x + t * dx : x + t * dx + 16] = True
    return masks


def test_objects_are_what_touches_nowhere_in_space_and_time():
    apart = separate_objects(boxes(5, (10, 10, 2), (60, 40, 1)))
    assert set(apart[0, 10:22, 10:26].ravel()) | set(apart[4, 10:22, 18:34].ravel()) == {1}
    assert set(apart[0, 40:52, 60:76].ravel()) | set(apart[4, 40:52, 64:80].ravel()) == {2}
    meeting = separate_objects(boxes(5, (10, 10, 8), (60, 10, 0)))
    assert meeting.max() == 1


def test_specks_are_no_objects():
    masks = boxes(5, (10, 10, 2))
    masks[2, 40, 80] = True  # one pixel
    masks[3, 40:50, 60:75] = True  # in one frame alone
    found = separate_objects(masks)
    np.testing.assert_array_equal(found > 0, boxes(5, (10, 10, 2)))


def test_of_too_many_objects_the_smallest_are_one():
    masks = np.zeros((2, 100, 400), bool)
    for k in range(12):
        masks[:, 20 : 60 - k, 30 * k : 30 * k + 10] = True
    found = separate_objects(masks)
    assert found.max() == MOST_OBJECTS
    assert [found[0, 30, 30 * k] for k in range(12)] == [*range(1, MOST_OBJECTS + 1), *[MOST_OBJECTS] * 4]


def test_nothing_that_moves_is_no_object():
    assert not separate_objects(np.zeros((3, 20, 30), bool)).any()


def test_prompts_are_apart_and_not_where_the_mask_is_poor():
    areas = np.full(20, 100)
    assert prompt_frames(areas, 4) == [0, 4, 8, 12, 16]
    areas[[0, 4, 5]] = [0, 3, 10]
    assert prompt_frames(areas, 4) == [1, 6, 10, 14, 18]
    assert prompt_frames(np.array([0, 5, 5, 5, 0]), 4) == [1, 3]
    assert prompt_frames(np.array([0, 5, 0]), 4) == [1]


class NearestPrompt:
    """A stand-in for SAM 2 that answers with the nearest prompt it was given, as it was given."""

    image_size = 100
    config = SimpleNamespace(max_cond_frame_num=-1, max_object_pointers_in_encoder=16, num_maskmem=7)

    def __call__(self, session, frame_idx):
        prompts = session.mask_inputs_per_obj[0]
        if session.obj_with_new_inputs:
            session.obj_with_new_inputs = []
            session.output_dict_per_obj[0]["cond_frame_outputs"][frame_idx] = {}
        nearest = min(prompts, key=lambda t: abs(t - frame_idx))
        return SimpleNamespace(pred_masks=20 * prompts[nearest] - 10)


@imports_transformers
def test_a_frame_that_prompts_is_judged_by_its_neighbours():
    truth = boxes(21, (30, 20, 0), size=(100, 100))
    rough = truth.copy()
    rough[8, 26:] = False  # frame 8, a prompt, saw half of the object
    found = refine_masks(np.zeros((21, 100, 100, 3), np.uint8), rough, NearestPrompt(), Run())
    np.testing.assert_array_equal(found.masks[8], truth[8])


@imports_transformers
def test_objects_keep_their_numbers_and_masks_grow_to_the_frames_size():
    rough = boxes(9, (10, 10, 0), (60, 40, 0))
    found = refine_masks(np.zeros((9, 120, 200, 3), np.uint8), rough, NearestPrompt(), Run()).ids
    large = separate_objects(rough).repeat(2, axis=1).repeat(2, axis=2)
    assert (found == large).mean() > 0.98
    assert set(found[:, 30, 40]) == {1}
    assert set(found[:, 90, 140]) == {2}


@imports_transformers
def test_an_object_is_followed_no_farther_than_a_prompts_distance():
    rough = boxes(30, (30, 20, 0))
    rough[:10] = rough[20:] = False
    seen = refine_masks(np.zeros((30, 60, 100, 3), np.uint8), rough, NearestPrompt(), Run(), every=3).masks.any((1, 2))
    assert np.flatnonzero(seen).tolist() == list(range(7, 23))


@imports_transformers
def test_refinement_can_be_cancelled():
    with pytest.raises(Cancelled):
        refine_masks(
            np.zeros((5, 60, 100, 3), np.uint8),
            boxes(5, (30, 20, 0)),
            NearestPrompt(),
            Run(is_cancelled=lambda: True),
        )


@pytest.fixture(scope="module")
def sam2():
    """SAM 2's own code with few and random weights."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [128, 128],
        "hidden_size": 16,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": 128},
        image_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
    )
    torch.manual_seed(0)
    return Sam2VideoModel(config).eval()


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (28, 60, 100, 3), np.uint8)


@imports_transformers
def test_each_frame_is_encoded_once_and_what_is_kept_does_not_grow(sam2, frames):
    encoded, kept = [], []

    def count(model, arguments, keywords):
        outputs = arguments[0].output_dict_per_obj[0]
        kept.append([len(outputs["cond_frame_outputs"]), len(outputs["non_cond_frame_outputs"])])

    hooks = [
        sam2.vision_encoder.register_forward_hook(lambda *_: encoded.append(1)),
        sam2.register_forward_pre_hook(count, with_kwargs=True),
    ]
    found = refine_masks(frames, boxes(28, (5, 5, 1), (20, 40, 1)), sam2, Run(), every=2)
    for hook in hooks:
        hook.remove()
    assert found.ids.shape == (28, 60, 100)
    assert len(encoded) == 28
    assert np.max(kept, axis=0)[0] <= PROMPTS_SEEN + 2
    assert np.max(kept, axis=0)[1] <= sam2.config.max_object_pointers_in_encoder


@imports_transformers
def test_it_says_what_transformers_own_way_of_asking_says(sam2, frames):
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceCache

    size = {"height": 128, "width": 128}
    processor = Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))
    frames, mask = frames[:8], boxes(8, (30, 20, 1))
    session = processor.init_video_session(video=list(frames))
    pictures = _Pictures(frames, 128)
    # They resize bytes and round them, which is where the difference comes from: at most one step of 255 levels.
    torch.testing.assert_close(pictures[3], session.processed_frames[3], atol=0.02, rtol=0)
    session.processed_frames = pictures
    for t in (2, 6):
        processor.add_inputs_to_inference_session(session, t, 1, input_masks=mask[t])
        with torch.inference_mode():
            sam2(session, frame_idx=t)
    expected = [output.pred_masks[0, 0] for output in sam2.propagate_in_video_iterator(session, start_frame_idx=0)]
    turn = _Turn(sam2, pictures, Sam2VideoInferenceCache(max_vision_features_cache_size=9), mask, [2, 6], 8, Run())
    for t, logits in enumerate(expected):
        torch.testing.assert_close(turn.step(t), logits.clamp(-10, 10), atol=1e-4, rtol=1e-4)


@imports_transformers
def test_the_model_comes_from_its_folder_whole_or_not_at_all(sam2, frames, tmp_path):
    folder = tmp_path / "sam2"
    sam2.save_pretrained(folder)
    mask = boxes(4, (30, 20, 1))
    found = refine_masks(frames[:4], mask, load_segmenter(folder), Run())
    np.testing.assert_array_equal(found.ids, refine_masks(frames[:4], mask, sam2, Run()).ids)
    tensors = load_file(folder / "model.safetensors")
    del tensors["no_memory_embedding"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="not those of SAM 2"):
        load_segmenter(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cannot be read"):
        load_segmenter(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        load_segmenter(folder)


def test_without_transformers_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="transformers") as error:
        load_segmenter(tmp_path)
    assert "install_deps.py" in str(error.value)
