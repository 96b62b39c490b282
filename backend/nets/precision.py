"""How exactly a network calculates: number types of its parts, TF32, memory layout, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """Number types and ways of calculating; the default is float32 throughout, for parity.

    `trunk` is the type of the weights of linear layers in encoder and decoders (norms and the residual stream stay
    float32), `heads` that of the heads, `tokens` that in which encodings wait for their pairs. `tf32` lets what is
    float32 use TF32 on a GPU. What each choice costs in accuracy is measured by benchmarks/network.py.
    """

    trunk: torch.dtype = torch.float32
    heads: torch.dtype = torch.float32
    tokens: torch.dtype = torch.float32
    tf32: bool = False
    channels_last: bool = False
    compiled: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Torch set to allow TF32 or not, and back as it was afterwards."""
        switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
        before = [switch.allow_tf32 for switch in switches]
        try:
            for switch in switches:
                switch.allow_tf32 = self.tf32
            yield
        finally:
            for switch, allowed in zip(switches, before):
                switch.allow_tf32 = allowed


#: float32 throughout.
EXACT = Precision()
#: bfloat16 trunk, heads in float32 storage with TF32 products.
FAST = Precision(torch.bfloat16, torch.float32, torch.float16, tf32=True, channels_last=True)
#: bfloat16 trunk, float16 heads.
FASTEST = Precision(torch.bfloat16, torch.float16, torch.float16, tf32=True, channels_last=True)


def precision_for(device: torch.device | str) -> Precision:
    """The precision to use on a device where parity is not asked for: FAST on GPUs with bfloat16, else EXACT."""
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return FAST
    return EXACT
