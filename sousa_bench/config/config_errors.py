"""One clear message for whatever is wrong with a config: what was asked, and what exists or comes closest."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from sousa_bench.errors import ConfigError, UserError


def is_config_error(error: BaseException) -> bool:
    """Whether ``error`` means that a config can't be composed or resolved."""
    from hydra.errors import HydraException, InstantiationException
    from yaml import YAMLError

    if isinstance(error, InstantiationException):
        return False
    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError)) or _is_no_name(error)


def _is_no_name(error: BaseException) -> bool:
    """Whether it is Hydra's error about a choice that is a number or a list of such, which names no key."""
    if isinstance(error, TypeError):  # model=[1,2]
        frames = traceback.extract_tb(error.__traceback__)
        return bool(frames) and Path(frames[-1].filename).name == "defaults_list.py"
    return isinstance(error, ValueError) and str(error).startswith("Config group override must be a string")


@contextmanager
def explained() -> Iterator[None]:
    """Compose inside of it.

    Raises:
        ConfigError: The config can't be composed or resolved; the message is that of :func:`explain`.
    """
    try:
        yield
    except Exception as error:
        if not is_config_error(error):
            raise
        raise ConfigError(explain(error)) from error


@contextmanager
def resolved() -> Iterator[None]:
    """Read a config's values inside of it.

    Raises:
        ConfigError: A mandatory value is missing or an interpolation leads nowhere.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config can't be resolved: {str(error).splitlines()[0]}") from error


def explain(error: BaseException) -> str:
    """A message for the user, without traceback.

    Args:
        error: What Hydra or OmegaConf raised (or a UserError, whose message is good as it is).

    Returns:
        One or two lines: the override or key, and the nearest existing choices or keys.
    """
    if cause := user_error(error):
        return str(cause)
    from hydra.errors import MissingConfigException, OverrideParseException

    if _is_no_name(error):
        kind = "list of numbers" if isinstance(error, TypeError) else str(error).rpartition(" ")[2]
        return f"a choice (model=…, peft=…, augmentation=… and the like) must be a name, and one of them is a {kind}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: this is no override. Write key=value (quote special characters): {_first(error)}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _missing_choice(str(error.missing_cfg_file or ""), list(error.options))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_file(str(error.missing_cfg_file), str(error))
    if several := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'", str(error)):
        return f"{several.group(1)}: several values are a sweep, which needs -m (--multirun)"
    if raised := _raised_in_resolver(error):
        return f"{type(raised).__name__}: {_first(raised)}"
    if key := _wrong_key(error):
        known = _known_keys(error)
        return (key in known and _present_key(key, str(error))) or missing_key(key, known)
    text, reason = _first(error), _first(error.__cause__)
    return f"{text}: {reason}" if reason and reason != text else text or type(error).__name__


def user_error(error: BaseException) -> UserError | None:
    """The error of the user's that ``error`` goes back to, if any."""
    return next((cause for cause in _chain(error) if isinstance(cause, UserError)), None)


def _raised_in_resolver(error: BaseException) -> BaseException | None:
    """What a function that an interpolation calls raised: no missing key, whatever OmegaConf's wrapping names."""
    from hydra.errors import HydraException

    causes = list(_chain(error))
    if not any(isinstance(cause, InterpolationResolutionError) for cause in causes):
        return None
    return next((cause for cause in causes if not isinstance(cause, (OmegaConfBaseException, HydraException))), None)


def near(word: str, words: Iterable[str], count: int = 3) -> list[str]:
    """The words that ``word`` was probably meant to be, best first; of equally near ones, with its first letter."""
    choices = list(dict.fromkeys(words))
    found = difflib.get_close_matches(word, choices, n=len(choices) or 1, cutoff=0.6)
    found.sort(key=lambda name: (-difflib.SequenceMatcher(None, name, word).ratio(), name[:1] != word[:1]))
    last = word.rpartition(".")[2]
    found += [name for name in choices if name.rpartition(".")[2] == last and name not in found]
    return found[:count]


def _missing_choice(path: str, options: list[str]) -> str:
    group, _, choice = path.rpartition("/")
    alias = {"true": "on", "false": "off", "yes": "on", "no": "off"}.get(choice.lower())
    close = [alias] if alias in options else near(choice, options)
    text = f"{group}={choice}: there is no such choice."
    if close:
        text += f" Did you mean {' or '.join(f'{group}={option}' for option in close)}?"
    return f"{text} Choices: {', '.join(sorted(options))}"


def _missing_file(path: str, message: str) -> str:
    group, _, choice = path.rpartition("/")
    name = f"{group}={choice}" if group else path
    return f"{name}: there is no such config ({message.splitlines()[0]})"


def _wrong_key(error: BaseException) -> str | None:
    """The key that an override names and the config lacks, if that is what is wrong."""
    match = re.search(r"Could not (?:override|append|delete|find)[^']*'([^']+)'", str(error))
    if match and "No match in the defaults list" not in str(error):
        return match.group(1).split("=")[0]
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException) and (found := re.search(r"full_key: (\S+)", str(cause))):
            return found.group(1)
    if match:
        return match.group(1)
    return None


def left_to_runs(words: list[str], error: BaseException) -> bool:
    """Leave to each run of a sweep a key that only the choices of a varied group have.

    ``peft=probe,knn peft.reads=last`` has such a key. Hydra gives a key of one value to the config that the sweep
    begins with, where the group has its default choice; several values, and a choice of one, it gives to the runs.

    Args:
        words: The command line; changed in place.
        error: What composing that config raised.

    Returns:
        Whether it was changed, so that composing it again is worth it.
    """
    key = _wrong_key(error) if is_config_error(error) else None
    group = (key or "").partition(".")[0]
    if not any(word.startswith(f"{group}=") and "," in word for word in words):
        return False
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == key and value and not value.startswith("choice("):
            words[index] = f"{key}=choice({value})"
            return True
    return False


def _present_key(key: str, said: str) -> str | None:
    """What is said of a key that is there and can't be added or taken away; None where something else is wrong."""
    if said.startswith("Could not append"):
        return f"{key}: there is such a key already; write {key}=…, without the +"
    if said.startswith("Could not delete"):
        return f"{key}: ~ takes away neither a key that is null nor one of another value; write {key}=…"
    return None


def missing_key(key: str, known: Iterable[str]) -> str:
    """What is said of a key that isn't there: the keys that were probably meant, or those beside it."""
    place, _, last = key.rpartition(".")
    words = {name: name.rpartition(".")[2] for name in known if not re.search(r"\.search\.|_target_$", name)}
    beside = {word: name for name, word in words.items() if name.rpartition(".")[0] == place}
    if place and beside:
        close = [name for word, name in beside.items() if _short_for(last, word)]
        close = close or [beside[word] for word in near(last, beside)]
        close = close or [name for name, word in words.items() if word == last]
    else:
        close = [name for name, word in words.items() if _short_for(last, word)] or near(key, words)
    text = f"{key}: there is no such key."
    if close:
        return f"{text} Did you mean {' or '.join(close[:3])}?"
    return f"{text} Keys there: {', '.join(sorted(beside.values()))}" if beside else text


def _short_for(word: str, name: str) -> bool:
    """Whether a word means a name: ``lr`` learning_rate, ``epochs`` max_epochs, ``rank`` r."""
    parts = name.split("_")
    return name == word[:1] or (len(parts) > 1 and (word in parts or word == "".join(part[:1] for part in parts)))


def _known_keys(error: BaseException) -> list[str]:
    """Every key of the config that was being composed, and every group."""
    keys = (key for config in _configs(error) for key in _keys(config))
    return list(dict.fromkeys(key for key in keys if not key.startswith("hydra.")))


def _configs(error: BaseException) -> Iterator[DictConfig]:
    """The configs that were being composed, taken from the frames of the error."""
    for cause in _chain(error):
        trace = cause.__traceback__
        while trace is not None:
            config = trace.tb_frame.f_locals.get("cfg")
            if isinstance(config, DictConfig):
                yield config
            trace = trace.tb_next


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        name = f"{prefix}{key}"
        yield name
        node: Any = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from _keys(node, f"{name}.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error or "").splitlines() if line.strip()), "")
