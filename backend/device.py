"""Which device networks run on: the graphics card when there is one that torch can use, else the processor."""

from __future__ import annotations

import os

import torch

from .run import Run
from .wire import UserError

AUTOMATIC = "auto"


def choose_device(run: Run) -> torch.device:
    """The device that a run asks for, or KINORA_DEVICE, or the best there is; `run.device` then names it.

    Raises UserError when the device asked for is not there.
    """
    name = run.device if run.device != AUTOMATIC else os.environ.get("KINORA_DEVICE", AUTOMATIC)
    if name == AUTOMATIC:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device '{name}' cannot be used ({str(error).splitlines()[0]})", "use cpu, or install its driver"
        ) from error
    run.device = str(device)
    if run.threads:
        torch.set_num_threads(run.threads)
    return device
