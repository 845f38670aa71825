"""A sweep's best combinations as the next sweep."""
