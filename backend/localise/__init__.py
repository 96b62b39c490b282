"""The parts of localising: a plate is matched with frames of a capture, and its cameras found in that one's world."""
