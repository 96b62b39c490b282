"""The parts of the Point3R engine between a clip and its network."""
