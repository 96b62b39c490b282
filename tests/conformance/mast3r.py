"""What is compared with MASt3R: a table of checks, each of which reads its part of the folder."""

from __future__ import annotations

from . import mast3r_network
from .rows import Check

#: To add a part, write a function that takes the folder and yields rows (`rows.Check`), and give it a line.
CHECKS: dict[str, Check] = {
    "loading": mast3r_network.check_loading,
    "published-keys": mast3r_network.check_published_keys,
    "network-small": mast3r_network.check_small,
    "heads": mast3r_network.check_heads,
    "network-full": mast3r_network.check_full_size,
}
