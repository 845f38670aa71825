from __future__ import annotations

from tests.core.conftest import config  # noqa: F401 - compose the real config
