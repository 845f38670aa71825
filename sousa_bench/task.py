"""What is asked of a clip: its classes, whether one or several hold, and whose clips make the sample.

The data make this object (`SousaData.task`); head, loss, metrics, predictions, report and export read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from sousa_bench.errors import UserError

CLIP = "clip"
"""The group's name where nothing is known of groups: each clip is the sample by itself."""
MOST_CLASSES = 30_000
LONGEST_NAME = 300


@dataclass(frozen=True)
class Task:
    """The question that a model answers about each clip.

    Attributes:
        classes: Class `i` of every model is `classes[i]`.
        names: Names for people, of those classes whose name is not the class itself.
        families: Family of each class, in the order in which tables and figures list the classes; empty: no families.
        several: Whether a clip has any number of classes, and not just one.
        noun: What a class is called: `rudiment`, `class`.
        group: What the clips come in groups of, which are the statistics' sample: `player`, `speaker`; `clip` where
            each clip stands for itself.
    """

    classes: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    several: bool = False
    noun: str = "class"
    group: str = CLIP

    def display(self, name: str) -> str:
        """A class's name for people."""
        return self.names.get(name, name)

    @property
    def nouns(self) -> str:
        """Several of `noun`."""
        return plural(self.noun)

    @property
    def groups(self) -> str:
        """Several of `group`."""
        return plural(self.group)

    @property
    def grouped(self) -> bool:
        """Whether groups are known."""
        return self.group != CLIP

    @property
    def groups_key(self) -> str:
        """What results call a number of groups: `players`, as before there were other tasks, else `groups`."""
        return "players" if self.group == "player" else "groups"

    def extent(self, clips: str, groups: object, link: str = ", ") -> str:
        """How much there is: `1,140 clips, 19 players`; `1,140 clips` where no groups are known."""
        return counted(clips, CLIP) + (f"{link}{counted(groups, self.group)}" if self.grouped else "")

    @property
    def clips_and_groups(self) -> str:
        """What the sample is made of: `clips and players`; `clips` where no groups are known."""
        return f"clips and {self.groups}" if self.grouped else self.groups

    @property
    def order(self) -> tuple[str, ...]:
        """The classes as tables list them: family by family, else as they are numbered."""
        place = {family: number for number, family in enumerate(self.family_names)}
        return tuple(sorted(self.families, key=lambda name: place[self.families[name]])) or self.classes

    @property
    def family_names(self) -> tuple[str, ...]:
        """The families in the order of `order`."""
        return tuple(dict.fromkeys(self.families.values()))

    @property
    def metric(self) -> str:
        """The metric that ranks, as it is called behind `val_` and `test_`."""
        return "map" if self.several else "acc"

    @property
    def score(self) -> str:
        """What that metric is called in a sentence."""
        return "mean average precision" if self.several else "accuracy"

    @property
    def digest(self) -> str:
        """Hex digest of classes and kind: results are comparable only where it is the same."""
        return hashlib.sha256(json.dumps([self.classes, self.several]).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The task as JSON."""
        return {
            "classes": list(self.classes),
            "names": dict(self.names),
            "families": dict(self.families),
            "several": self.several,
            "noun": self.noun,
            "group": self.group,
        }

    @classmethod
    def from_dict(cls, content: Any, origin: object) -> Task:
        """The task that a file holds; the file may be foreign.

        Args:
            content: What `as_dict` gave.
            origin: The file, for the message.

        Raises:
            UserError: It is none.
        """
        try:
            made = cls(
                tuple(_name(name) for name in content["classes"]),
                {_name(key): _name(value) for key, value in content.get("names", {}).items()},
                {_name(key): _name(value) for key, value in content.get("families", {}).items()},
                content.get("several", False) is True,
                _name(content.get("noun", "class")),
                _name(content.get("group", CLIP)),
            )
            known = set(made.classes)
            if not 1 < len(made.classes) <= MOST_CLASSES or len(known) < len(made.classes):
                raise ValueError("its classes are no list of different names")
            if not set(made.names) <= known or (made.families and set(made.families) != known):
                raise ValueError("its names or families are of other classes")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{origin}: says of no task that it was trained for ({error}); copy it again.") from error
        return made


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise ValueError(f"{str(value)[:60]!r} is no name")
    return value


def counted(number: object, noun: str) -> str:
    """`1 speaker`, `2 speakers`, `1,140 clips`; of a number as text too, which stays as it is."""
    text = f"{number:,}" if isinstance(number, Integral) else str(number)
    return f"{text} {noun if text == '1' else plural(noun)}"


def plural(noun: str) -> str:
    """`player` → `players`, `class` → `classes`, `city` → `cities`."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
