"""Kernels of our own for what training on a CPU spends its time on; compiled where they run."""
