"""Sweeps on Slurm: one job array, a supervisor in each job, and records that are true whoever is left to write them."""
