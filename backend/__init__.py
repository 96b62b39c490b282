"""Kinora's backend: everything that computes, in a process of its own."""

__version__ = "0.1.0"
