"""What a run, a sweep, the cache and a prediction cost beside their arithmetic."""
