"""Floor 1: numbers only. NumPy at most; knows neither torch, nor a runtime, nor a device."""
