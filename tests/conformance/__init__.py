"""Conformance: Kinora against arrays recorded from other implementations, one line for each array.

`python -m tests.conformance SYSTEM FOLDER`, where FOLDER is laid out like that system's recorded fixtures.
"""
