"""One test over many cases of a kind, which names all that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def check_each(cases: Iterable[Any], check: Callable[..., None]) -> None:
    """Call ``check`` with each case (a tuple's items as its arguments), and fail with every case that failed.

    Raises:
        AssertionError: Cases failed, or there were none.
    """
    count, failures = 0, []
    for count, case in enumerate(cases, 1):  # noqa: B007 - their number, after the loop
        try:
            check(*case) if isinstance(case, tuple) else check(case)
        except (Exception, pytest.fail.Exception) as error:  # the second, where `pytest.raises` saw nothing raised
            failures.append(f"{case}: {type(error).__name__}: {error}")
    assert count, "no cases"
    assert not failures, f"{len(failures)} of {count} cases failed:\n" + "\n".join(failures)
