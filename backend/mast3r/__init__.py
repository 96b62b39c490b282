"""The parts of the MASt3R engine: what stands between a clip or a set of images and its network."""
