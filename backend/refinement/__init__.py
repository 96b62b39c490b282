"""The parts of camera refinement, one idea a file; `backend/refine.py` reads as the method goes."""
