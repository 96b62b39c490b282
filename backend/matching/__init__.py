"""Matching: descriptor maps of two pictures -> pixels that show the same point; knows no networks, files or clips."""
