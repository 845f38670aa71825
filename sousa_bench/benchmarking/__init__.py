"""What a run, a sweep, the cache and a prediction cost beside the arithmetic that they can't do without."""
