"""Sparse alignment: matches and pointmaps of image pairs -> cameras, lens and depth of a set that stands still.

Pixels are counted from the centre of the first one, with the principal point at (W/2, H/2); the engine converts at its
door. Nothing here knows networks: what they see comes in as tensors.
"""
