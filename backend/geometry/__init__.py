"""Geometry: cameras, rigid motions, trajectories, image motion; knows no networks, files or devices."""
