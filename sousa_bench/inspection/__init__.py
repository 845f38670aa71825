"""What data hold, and what a test on them could find, before any training."""
