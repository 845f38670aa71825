"""A trained run as one folder that needs no sousa_bench."""
