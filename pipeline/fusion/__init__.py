"""The fusion proof: what of a quantized model really runs in int8, what does not, and why. Rule: names no runtime."""
