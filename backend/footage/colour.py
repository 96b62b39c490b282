"""High dynamic range to 8 bits: PQ and HLG pictures in BT.2020 tone mapped to sRGB in NumPy.

PyAV's build has no zscale filter, and a solver needs pictures whose mid-tones look like any other clip's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: Luminance that graphics white has in HDR material, shown as SDR white (ITU-R BT.2408), in cd/m2.
WHITE_NITS = 203.0
HLG_PEAK_NITS, HLG_GAMMA = 1000.0, 1.2
#: Linear light up to here is kept; what is brighter rolls off towards 1.
KNEE = 0.8

REC709_FROM_2020 = np.array(  # ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def to_sdr(rgb: np.ndarray, transfer: str) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of (H, W, 3) uint16 BT.2020 code values with transfer 'pq' or 'hlg'."""
    linear = _linear_table(transfer)[rgb]
    if transfer == "hlg":  # BT.2100: the display's light is the scene's, its luminance raised to the system gamma
        luma = np.maximum(linear @ LUMA_2020, 1e-6)
        linear = linear * (luma ** (HLG_GAMMA - 1))[..., None] * (HLG_PEAK_NITS / WHITE_NITS)
    brightest = np.maximum(linear.max(axis=-1, keepdims=True), 1e-6)
    linear = linear * (_roll_off(brightest) / brightest)  # one factor for all three keeps the hue
    linear = np.clip(linear @ REC709_FROM_2020.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(srgb * 255).astype(np.uint8)


def _roll_off(x: np.ndarray) -> np.ndarray:
    over = np.maximum(x - KNEE, 0) / (1 - KNEE)
    return np.where(x <= KNEE, x, 1 - (1 - KNEE) * np.exp(-over))


@cache
def _linear_table(transfer: str) -> np.ndarray:
    """(65536,) linear light of each code value: PQ as a multiple of white, HLG as scene light in [0, 1]."""
    code = np.arange(65536) / 65535
    if transfer == "pq":  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        p = code ** (1 / m2)
        light = (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1) * 10000 / WHITE_NITS
    elif transfer == "hlg":  # ARIB STD-B67
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        raise ValueError(f"unknown transfer function '{transfer}'")
    return light.astype(np.float32)
