"""What runs ON a device: shipped as one zip application; needs only Python 3.8, NumPy and the target's runtime."""
