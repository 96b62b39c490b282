"""Fuzzing: whatever bytes arrive, each reader takes them or refuses them as it says; with hypothesis and atheris."""
