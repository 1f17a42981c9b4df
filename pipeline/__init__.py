"""Floor 3: from recipe to release; the only floor that knows torch."""
