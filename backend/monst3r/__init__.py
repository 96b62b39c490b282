"""The parts of the MonST3R engine: what stands between a clip and its network."""
