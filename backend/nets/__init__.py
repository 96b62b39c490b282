"""Networks: layers, models, their weights, and how they run on a device; tensors in, tensors out."""
