"""Statistics of measurements: percentiles, bounds, sequential verdicts, intervals of shares."""
