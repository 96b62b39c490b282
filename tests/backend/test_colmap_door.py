"""pycolmap lives in one process with OpenCV's and Pillow's PNG code; see backend/colmap.py."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A process of its own, since what happens depends on what was loaded first.
PROGRAM = """
from backend.colmap import pycolmap
import io, cv2, numpy as np
from PIL import Image
picture = np.random.default_rng(0).integers(0, 255, (288, 512, 3), np.uint8)
for level in (1, 3, 6) * 3:
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, level])
    assert (cv2.imdecode(data, 1) == picture).all()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=level)
    assert (np.asarray(Image.open(file)) == picture).all()
"""


def test_png_survives_pycolmap_loaded_first():
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
