"""Hyperparameter search: Optuna chooses, the sweep's own machinery runs; ``docs/search.md`` tells how it behaves."""
