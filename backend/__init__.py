"""Kinora's backend: everything that computes, in a process of its own."""
