"""The command line's commands; `python -m backend` is in backend/__main__.py."""
