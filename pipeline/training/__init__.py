"""Training: the one loop, what feeds it, and fake quantization. Rule: knows models and losses, never the recipe."""
