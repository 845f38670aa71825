"""Hydra's sweeper and local launcher for sousa_bench: thin shells, since Hydra looks for plugins nowhere else."""
