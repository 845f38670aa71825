"""What does not count for a run's identity: shared by what makes fingerprints and by what compares runs."""

from __future__ import annotations

from typing import Any

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
    "data.table",
    "data.columns",
    "data.group_pattern",
    "data.classes",
    "data.cache_dir",
    "data.cache_limit_gb",
    "data.workers",
    "trainer.progress",
    "trainer.checkpoint_minutes",
    "trainer.feature_memory_mb",
    "model.refuses",
    "peft.search",
)


# Modules that have moved since the first results: a run keeps the identity that it had, and a choice of the user's own
# that names a class where it lay is still taken. Now → then.
FORMER_MODULES = {
    "sousa_bench.config.settings": "sousa_bench.settings",
    "sousa_bench.data.augmentation": "sousa_bench.augmentation",
    "sousa_bench.training.loggers": "sousa_bench.loggers",
}
PRESENT_MODULES = {then: now for now, then in FORMER_MODULES.items()}


def lasting_target(target: str) -> str:
    """A ``_target_`` by the name that counts for identity, wherever its module lies today."""
    module, _, name = target.rpartition(".")
    return f"{FORMER_MODULES.get(module, module)}.{name}"


def with_present_targets(node: Any) -> Any:
    """A plain node in which each ``_target_`` is where its module lies today."""
    if isinstance(node, list):
        return [with_present_targets(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: with_present_targets(item) for key, item in node.items()}
    module, _, name = str(node.get("_target_")).rpartition(".")
    if module in PRESENT_MODULES:
        made["_target_"] = f"{PRESENT_MODULES[module]}.{name}"
    return made
