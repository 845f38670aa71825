"""The space of a search: which keys vary and how, what stays fixed, and the baseline that every study begins with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.composing import compose
from sousa_bench.config.fingerprint import fingerprint, outcome_config
from sousa_bench.config.overrides import literal, split
from sousa_bench.config.settings import check_values
from sousa_bench.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from optuna.distributions import BaseDistribution

Value = str | int | float
# A search over these would compare what can't be compared, or find luck.
INCOMPARABLE = ("seed", "data", "weights", "init_from", "trainer.eval_batches")
OF_THE_SEARCH = ("sweep", "resume", "force", "on_error", "n_jobs", "timeout", "search", "experiment", "lineage")


@dataclass
class Space:
    """What a search varies.

    Attributes:
        fixed: Overrides that all trials share, without ``search``.
        distributions: Key → Optuna's distribution; the choices of a categorical one are overrides' values as text.
        baseline: Key → the value that the config has by itself.
        identity: Fingerprint of the baseline.
        notes: What the user should know, such as a default that was added to the choices.
        prefixes: Key → Hydra's ``+`` where the override has one.
    """

    fixed: list[str]
    distributions: dict[str, BaseDistribution]
    baseline: dict[str, Value]
    identity: str
    notes: list[str] = field(default_factory=list)
    prefixes: dict[str, str] = field(default_factory=dict)

    def overrides(self, params: Mapping[str, Value]) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *self.own(params)]

    def own(self, params: Mapping[str, Value]) -> list[str]:
        """The overrides in which a trial differs from others."""
        return [f"{self.prefixes.get(key, '')}{key}={spelled(params[key])}" for key in self.distributions]

    def description(self) -> dict[str, Any]:
        """The distributions as JSON, to hold a study against."""
        from optuna.distributions import distribution_to_json

        return {key: json.loads(distribution_to_json(item)) for key, item in self.distributions.items()}


def spelled(value: Value) -> str:
    """A parameter's value as Hydra reads it back; the values of choices are spelled already."""
    return value if isinstance(value, str) else repr(value)


def make_space(loader: ConfigLoader, master: DictConfig, params: Mapping[str, str], arguments: Sequence[str]) -> Space:
    """Read the space from a search's ``params`` and the command line, and try its ends.

    Args:
        loader: Hydra's.
        master: The config that the search was started with.
        params: Key → values, in Hydra's sweep syntax.
        arguments: Overrides of the command line; these have the last word.

    Raises:
        ConfigError: A key that doesn't exist or must not vary, a value that can't be, or nothing that varies.
    """
    if isinstance(master.get("search"), DictConfig):
        raise ConfigError(
            "the search's file sets nothing: its first line must be `# @package _global_`, or Hydra puts it below "
            "`search`, where nothing reads it"
        )
    words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    given = {item.get_key_element(): item for item in OverridesParser.create(loader).parse_overrides(words)}
    varied = {key: item for key, item in given.items() if item.is_sweep_override()}
    _check_keys(varied)
    fixed = [f"{key}={item.get_value_element_as_str()}" for key, item in given.items() if key not in varied]
    fixed, base = _without_search(loader, master, fixed)
    space = Space(fixed, {}, {}, "")
    _try(loader, master, fixed, varied)
    for key, item in varied.items():
        name = key.lstrip("+~")
        space.prefixes[name] = key[: len(key) - len(name)]
        _add(space, name, item, _default(base, name, added=key.startswith("+")))
    first = compose(loader, master, space.overrides(space.baseline))
    check_values(first)
    space.identity = fingerprint(first)
    return space


def _check_keys(varied: Mapping[str, Override]) -> None:
    if not varied:
        raise ConfigError(
            "nothing to search: take a space (search=lora), or give a key several values, such as "
            "'peft.r=choice(4,8,16)' or 'peft.learning_rate=tag(log,interval(1e-4,1e-2))'"
        )
    for key in (key.lstrip("+~") for key in varied):
        if key in INCOMPARABLE or key.startswith("data."):
            raise ConfigError(f"{key}: a search can't vary it; its trials could not be compared. Give it one value")
        if key in OF_THE_SEARCH or key.startswith("lineage."):
            raise ConfigError(f"{key}: it belongs to the search as a whole. Give it one value")


def _without_search(loader: ConfigLoader, master: DictConfig, fixed: list[str]) -> tuple[list[str], DictConfig]:
    """The fixed overrides with what ``search`` chooses spelled out, so that a trial's command starts no search."""
    with_search = compose(loader, master, fixed)
    check_values(with_search)
    chosen = [word for word in fixed if split(word)[0] == "search"]
    if not chosen:
        return fixed, with_search
    rest = [word for word in fixed if word not in chosen]
    alone = compose(loader, master, rest)
    theirs, ours = (OmegaConf.to_container(config.hydra.runtime.choices) for config in (with_search, alone))
    assert isinstance(theirs, dict)
    assert isinstance(ours, dict)
    more = [
        f"{group!s}={choice}"
        for group, choice in theirs.items()
        if ours.get(group) != choice and group != "search" and not str(group).startswith("hydra/")
    ]
    spelled_out = compose(loader, master, [*more, *rest])
    if outcome_config(spelled_out) != outcome_config(with_search):
        raise ConfigError(
            f"{chosen[0]}: it sets more than a space (hydra.sweeper) and choices of groups; put that into an experiment"
        )
    return [*more, *rest], spelled_out


def _try(loader: ConfigLoader, master: DictConfig, fixed: Sequence[str], varied: Mapping[str, Override]) -> None:
    """Compose with both ends of each range and with each choice, so that what can't be is refused before anything runs.

    Keys go through their values side by side, not in every combination.
    """
    tried = {key: _some_values(key, item) for key, item in varied.items()}
    for place in range(max(map(len, tried.values()))):
        words = [f"{key}={values[min(place, len(values) - 1)]}" for key, values in tried.items()]
        check_values(compose(loader, master, [*fixed, *words]))


def _some_values(key: str, item: Override) -> list[str]:
    """Every choice, or the ends of a range."""
    value = item.value()
    if isinstance(value, ChoiceSweep):
        return list(item.sweep_string_iterator())
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return [spelled(number) for number in _ends(key, value)]


def _default(base: DictConfig, name: str, *, added: bool) -> Any:
    """The value that a key has without the search: of a group, the name of its choice."""
    choices = base.hydra.runtime.choices
    if name in choices:
        return choices[name]
    value = OmegaConf.select(base, name, default=None)
    if value is None and added:
        raise ConfigError(
            f"{name}: it has no value by itself, so that the search has no baseline; put it into a config"
        )
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _add(space: Space, name: str, item: Override, default: Any) -> None:
    """Put a key into the space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = item.value()
    if isinstance(value, ChoiceSweep):
        texts = list(dict.fromkeys(item.sweep_string_iterator()))
        natives = [_native(text) for text in texts]
        if default not in natives:
            texts.insert(0, literal(default))
            natives.insert(0, default)
            space.notes.append(f"{name}: the default, {texts[0]}, is added to the choices")
        space.distributions[name] = CategoricalDistribution(texts)
        space.baseline[name] = texts[natives.index(default)]
        return
    if not isinstance(default, (int, float)) or isinstance(default, bool):
        raise ConfigError(
            f"{name}: its default is {literal(default)}, no number, so that the search has no baseline; "
            f"give it one in a config, or name choices: '{name}=choice(…)'"
        )
    log = "log" in getattr(value, "tags", ())
    numbers: list[Any]
    step: Any = None
    if isinstance(value, IntervalSweep):
        numbers = [value.start, value.end]
    else:
        numbers = _ends(name, value)
        step = None if log else getattr(value, "step", None)
    integers = all(isinstance(number, int) for number in numbers)
    try:
        if integers:
            space.distributions[name] = IntDistribution(numbers[0], numbers[1], log=log, step=step or 1)
        else:
            space.distributions[name] = FloatDistribution(float(numbers[0]), float(numbers[1]), log=log, step=step)
    except ValueError as error:
        raise ConfigError(f"{name}={item.get_value_string()}: {str(error).splitlines()[0]}") from error
    if integers and default != int(default):
        raise ConfigError(f"{name}: its default is {default}, but the search takes whole numbers; write interval(…)")
    space.baseline[name] = int(default) if integers else float(default)


def _ends(key: str, value: Any) -> list[Any]:
    """First and last number of a range, whose stop is not part of it."""
    if not isinstance(value, RangeSweep) or value.start is None or value.stop is None or value.step <= 0:
        raise ConfigError(f"{key}: a search takes choice(…), range(start,stop[,step]) or interval(low,high)")
    numbers = list(value.range())
    if not numbers:
        raise ConfigError(f"{key}: the range holds no number")
    return [numbers[0], numbers[-1]]


def _native(text: str) -> Any:
    value = OverridesParser.create().parse_override(f"key={text}").value()
    return value.text if isinstance(value, QuotedString) else value
