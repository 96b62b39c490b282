"""The parts of the classical engine, one idea a file: shots, features, sfm, rotation, flow, motion masks, depth, filling."""
