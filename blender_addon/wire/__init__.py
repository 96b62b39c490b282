"""What the add-on and the backend agree on: standard library and NumPy only, relative imports."""
