"""Moving objects cut out cleanly: SAM 2 follows through the clip what rough motion masks point at.

The rough masks of a few frames prompt it; what it says of the frames in between, and of the prompted ones from their
neighbours' prompts, is the result. So no frame's own rough mask decides about that frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from ..run import Run
from ..wire import UserError
from .memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

#: A rough object that never covers this share of a frame, or is there in one frame alone, is noise.
LEAST_AREA = 5e-4
#: So many objects are followed; of more, the smallest are followed as one.
MOST_OBJECTS = 8
#: Gaps up to this share of the picture's width do not part an object.
GAP = 0.01
#: Prompted frames that SAM 2 looks at for one frame; without a limit its cost grows with the square of the clip.
PROMPTS_SEEN = 4
#: ImageNet's mean and spread, by which SAM 2 was trained.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Logits beyond this are as sure as can be; SAM 2 writes -1024 where it thinks the object hidden.
_SURE = 10.0


@dataclass(frozen=True)
class MovingObjects:
    """`ids` (T, H, W) uint8: 0 where nothing moves, else which object does; an object keeps its number all along."""

    ids: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """(T, H, W) bool: what moves."""
        return self.ids > 0


def load_segmenter(folder: Path | None = None, model: str = "large", device: str = "cpu") -> Sam2VideoModel:
    """SAM 2 'large', 'small' or 'tiny' with the weights that the project's list names, or those of a folder.

    The folder has `model.safetensors` and `config.json` as published for transformers. Raises UserError when
    transformers is not installed, or the weights are missing or not SAM 2's.
    """
    try:
        from transformers import Sam2VideoModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(
            f"SAM 2 needs the package transformers, which does not load ({error})",
            "run 'python install_deps.py backend', or turn off the refinement of masks",
        ) from error
    if folder is None:
        from .weights import find_weights

        folder = find_weights(f"sam2_{model}").parent
    hint = "get SAM 2's weights again, or turn off the refinement of masks"
    for file in ("config.json", "model.safetensors"):
        if not (Path(folder) / file).is_file():
            raise UserError(f"There is no {file} of SAM 2 in {folder}", hint)
    disable_progress_bar()  # of reading the file, on the console
    try:
        network, found = Sam2VideoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers, safetensors and torch raise many kinds
        said = str(error).partition("\n")[0]
        raise UserError(f"The weights of SAM 2 in {folder} cannot be read ({said})", hint) from error
    if found["missing_keys"] or found["mismatched_keys"]:
        raise UserError(f"The weights in {folder} are not those of SAM 2 for video", hint)
    return network.to(device).eval()


def refine_masks(
    frames: np.ndarray, rough: np.ndarray, model: Sam2VideoModel, run: Run, every: int = 4
) -> MovingObjects:
    """Refine rough motion masks (T, h, w) bool of frames (T, H, W, 3) uint8, at the frames' resolution.

    Each object is prompted at most in every `every`-th frame, in two turns: of a prompted frame the other turn's
    opinion is taken, of the others the mean of both. It is followed from `every` frames before its first prompt to as
    many after its last. Each frame is encoded once, and what is kept does not grow with the clip. Reports progress of
    the running stage. Raises Cancelled, and UserError when the device has too little memory.
    """
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceCache

    model.config.max_cond_frame_num = PROMPTS_SEEN
    height, width = frames.shape[1:3]
    objects = separate_objects(rough)
    ids = np.zeros((len(frames), height, width), np.uint8)
    # Room for all frames from the present one to the farthest prompt ahead, and one: the oldest goes first.
    shared = Sam2VideoInferenceCache(run.device, run.device, max_vision_features_cache_size=2 * every + 2)
    pictures = _Pictures(frames, model.image_size)
    followed = [_Followed(model, pictures, shared, objects == k, every, run) for k in range(1, objects.max() + 1)]
    try:
        for t in run.steps(len(frames)):
            present = [(k, f.logits(t)) for k, f in enumerate(followed, 1) if f.first <= t <= f.last]
            if present:
                logits = torch.stack([logits for _, logits in present])[None]
                logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[0]
                strongest, which = logits.max(dim=0)
                numbers = torch.tensor([k for k, _ in present], dtype=torch.uint8, device=which.device)
                ids[t] = torch.where(strongest > 0, numbers[which], 0).cpu().numpy()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "The device has too little memory for SAM 2",
            "close other programs that use the GPU, choose a smaller SAM 2, or turn off the refinement of masks",
        ) from error
    return MovingObjects(ids)


def separate_objects(rough: np.ndarray) -> np.ndarray:
    """(T, h, w) uint8: which object each pixel of the rough masks (T, h, w) bool belongs to, 0 where to none.

    Objects are the parts of the masks that touch nowhere in space and time, large ones first.
    """
    frames, height, width = rough.shape
    reach = 2 * max(1, round(GAP * width / 2)) + 1
    joined = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8)) for mask in rough])
    labels, count = ndimage.label(joined, structure=np.ones((3, 3, 3), bool))
    labels[~rough] = 0
    areas = np.stack([np.bincount(frame.ravel(), minlength=count + 1) for frame in labels])[:, 1:]
    seen = (areas > 0).sum(0) >= min(2, frames)
    kept = np.flatnonzero(seen & (areas.max(0, initial=0) >= LEAST_AREA * height * width))
    kept = kept[np.argsort(-areas[:, kept].sum(0), kind="stable")]
    number = np.zeros(count + 1, np.uint8)
    number[kept + 1] = np.minimum(np.arange(1, len(kept) + 1), MOST_OBJECTS)
    return number[labels]


def prompt_frames(areas: np.ndarray, every: int) -> list[int]:
    """Frames to prompt an object in, at least `every` apart, where its area (T,) is not small for it."""
    good = np.flatnonzero(areas >= 0.25 * np.median(areas[areas > 0]))
    chosen = [int(good[0])]
    for t in good:
        if t >= chosen[-1] + every:
            chosen.append(int(t))
    if len(chosen) == 1 and good[-1] > good[0]:  # two, so that each has another's opinion
        chosen.append(int(good[-1]))
    return chosen


class _Followed:
    """One object, followed in two turns that are prompted in alternate frames."""

    def __init__(self, model: Any, pictures: _Pictures, shared: Any, mask: np.ndarray, every: int, run: Run):
        prompts = prompt_frames(mask.sum((1, 2)), every)
        self.first, self.last = prompts[0] - every, prompts[-1] + every
        turns = [prompts[0::2], prompts[1::2]]
        self._turns = [_Turn(model, pictures, shared, mask, turn, 2 * every, run) for turn in turns if turn]

    def logits(self, t: int) -> torch.Tensor:
        """Low-resolution logits of the object in frame t; frames must be asked for in order."""
        said = [(turn.step(t), t in turn.prompts) for turn in self._turns]
        unbiased = [logits for logits, prompted in said if not prompted]
        return torch.stack(unbiased or [logits for logits, _ in said]).mean(0)


class _Turn:
    """SAM 2's session of one object with some of its prompts; old results are forgotten when no longer looked at."""

    def __init__(
        self,
        model: Any,
        pictures: _Pictures,
        shared: Any,
        mask: np.ndarray,
        prompts: Sequence[int],
        ahead: int,
        run: Run,
    ):
        from transformers import Sam2VideoInferenceSession

        self._model, self._mask, self._ahead = model, mask, ahead
        self._device = torch.device(run.device)
        self.prompts, self._to_come = frozenset(prompts), list(prompts)
        self._session = Sam2VideoInferenceSession(
            inference_device=run.device, inference_state_device=run.device, dtype=torch.float32
        )
        self._session.processed_frames = pictures
        self._session.cache = shared
        self._session.obj_id_to_idx(1)

    @torch.inference_mode()
    def step(self, t: int) -> torch.Tensor:
        """Low-resolution logits in frame t, from the prompts at most `ahead` frames after it and what came before."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            while self._to_come and (self._to_come[0] <= t + self._ahead or not self._kept("cond")):
                self._prompt(self._to_come.pop(0))
            logits = self._model(self._session, frame_idx=t).pred_masks
        self._forget(t)
        return logits.float().reshape(logits.shape[-2:]).clamp(-_SURE, _SURE)

    def _prompt(self, t: int) -> None:
        size = (self._model.image_size,) * 2
        mask = torch.from_numpy(self._mask[t]).to(self._device, torch.float32)[None, None]
        mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=True) >= 0.5
        self._session.add_mask_inputs(0, t, mask.float())
        self._session.obj_with_new_inputs = [1]
        self._model(self._session, frame_idx=t)

    def _forget(self, t: int) -> None:
        """Drop what SAM 2 does not look at again: full-size logits, far frames, old prompts."""
        reach = max(self._model.config.max_object_pointers_in_encoder, self._model.config.num_maskmem)
        between, prompted = self._kept("non_cond"), self._kept("cond")
        for old in [frame for frame in between if frame <= t - reach]:
            del between[old]
        for old in sorted(frame for frame in prompted if frame <= t)[:-PROMPTS_SEEN]:
            del prompted[old]
            self._session.mask_inputs_per_obj[0].pop(old, None)
        for output in (*between.values(), *prompted.values()):
            output.pop("high_res_masks", None)
        tracked = self._session.frames_tracked_per_obj[0]
        for old in [frame for frame in tracked if frame <= t - reach]:
            del tracked[old]

    def _kept(self, kind: str) -> dict[int, dict[str, torch.Tensor]]:
        return self._session.output_dict_per_obj[0][f"{kind}_frame_outputs"]


class _Pictures:
    """The frames as SAM 2 takes them, (3, size, size) float32, each made when it is asked for."""

    def __init__(self, frames: np.ndarray, size: int):
        self._frames, self._size = frames, size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, t: int) -> torch.Tensor:
        picture = torch.from_numpy(np.array(self._frames[t])).permute(2, 0, 1)[None].float() / 255
        size = (self._size, self._size)
        picture = F.interpolate(picture, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        return (picture - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_SPREAD).view(3, 1, 1)
