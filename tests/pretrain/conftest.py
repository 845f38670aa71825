from __future__ import annotations

from tests.core.conftest import cache, config  # noqa: F401 - compose the real config
