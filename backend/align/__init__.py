"""Global alignment: pair predictions of a two-view network -> cameras, lens and depth of a whole clip.

Pixels are counted as MonST3R's family counts them, from the centre of the first one, with the principal point at
(W/2, H/2); the engine converts at its door. Nothing here knows networks: predictions come in as tensors.
"""
