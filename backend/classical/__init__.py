"""The parts of the classical engine, one idea a file."""
