"""Chaos: servers, workers, clients and lines that are killed, cut, stalled and starved, and what must come of it."""
