"""Tries a new environment from inside: imports its groups, computes on the best device, compares that with the machine.

An installer that says "done" has not shown that a library loads, that torch and torchvision belong together, or that
PyTorch reaches the GPU: a build that does not match the driver computes on the processor and says nothing.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

#: Group of requirements/ -> the modules that it brings.
MODULES = {
    "torch": "torch torchvision roma",
    "backend": "numpy scipy cv2 pycolmap imageio av PIL zmq trimesh zstandard safetensors huggingface_hub tqdm evo "
    "transformers",
    "blender": "bpy",
    "cluster": "ray",
    "test": "pytest hypothesis psutil",
}


def gpu_of_machine() -> str:
    """The GPU that PyTorch could use here, found without PyTorch; empty if there is none."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    if listed.strip():
        return listed.partition("\n")[0]
    if Path("/dev/kfd").exists():
        return "AMD GPU"
    return "Apple GPU" if (sys.platform, platform.machine()) == ("darwin", "arm64") else ""


def pytorch(build: str) -> str:
    """A sentence on what PyTorch computes on, `build` being what was asked for. Raises SystemExit if it is not that."""
    import torch
    import torchvision

    if torch.__version__.partition("+")[2] != torchvision.__version__.partition("+")[2]:
        raise SystemExit(f"torch {torch.__version__} and torchvision {torchvision.__version__} do not belong together")
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    ones = torch.ones(64, 64, device=device)
    if float((ones @ ones).sum()) != 64**3:
        raise SystemExit(f"PyTorch {torch.__version__} computes wrongly on {device}")
    found = f"PyTorch {torch.__version__} computes on {device}"
    if device == "cpu" and build.startswith(("cu", "rocm")):
        raise SystemExit(f"{found}, though {build} was asked for")
    if device == "cpu" and build != "cpu" and gpu_of_machine():
        return f"WARNING: {found}, not on the {gpu_of_machine()}; update its driver, or name a build: --torch cu126"
    return found


if __name__ == "__main__":
    build, *groups = sys.argv[1:]
    for name in " ".join(MODULES[g] for g in groups).split():
        importlib.import_module(name)
    print(pytorch(build) if "torch" in groups else f"{', '.join(groups)}: all modules load", flush=True)
    os._exit(0)  # bpy has nothing to tidy up, and takes its time over it
