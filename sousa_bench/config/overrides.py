"""How one override is spelt. Imports nothing heavy: the analysis, which needs no Hydra, reads and writes them too."""

from __future__ import annotations

import re


def split(override: str) -> tuple[str, str]:
    """Key, without Hydra's ``+`` and ``~``, and value of an override."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back."""
    if re.fullmatch(r"[\w./@+-]+", text, re.ASCII):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
