"""Streaming reconstruction: what one network pass a frame gives, fused, placed, refined; networks are not imported."""
