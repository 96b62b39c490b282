"""Names of the attributes that points carry, as nodes, materials, renderers and files know them."""

# Of the carrier, whose points are the T cameras of the capture.
CLIP_FRAME = "clip_frame"
PIXEL_ANGLE = "pixel_angle"
# Of every cloud; the last two only where the capture has them.
COLOR, CONFIDENCE, DYNAMIC = "Color", "confidence", "dynamic"  # Cycles takes "color" for a volume's: black
OBJECT, VELOCITY = "object", "velocity"  # Cycles blurs points by "velocity"
#: Of ghosts: below 0 they are earlier frames, above later ones; 1 would be gone.
AGE = "age"
