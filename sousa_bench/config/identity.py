"""What does not count for a run's identity: shared by what makes fingerprints and by what compares runs."""

from __future__ import annotations

# Keys that don't change what a run's numbers are: where it writes, how it is launched and watched, where data lie.
IRRELEVANT = (
    "hydra",
    "timeout",
    "n_jobs",
    "sweep",
    "resume",
    "force",
    "on_error",
    "experiment",
    "lineage",
    "search",
    "logger",
    "data.root",
    "data.cache_dir",
    "data.cache_limit_gb",
    "data.workers",
    "trainer.progress",
    "trainer.checkpoint_minutes",
    "trainer.feature_memory_mb",
    "model.refuses",
    "peft.search",
)


# Modules that have moved since the first results: a run keeps the identity that it had. Now → then.
FORMER_MODULES = {
    "sousa_bench.config.settings": "sousa_bench.settings",
    "sousa_bench.data.augmentation": "sousa_bench.augmentation",
}


def lasting_target(target: str) -> str:
    """A ``_target_`` by the name that counts for identity, wherever its module lies today."""
    module, _, name = target.rpartition(".")
    return f"{FORMER_MODULES.get(module, module)}.{name}"
