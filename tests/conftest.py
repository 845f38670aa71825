"""What every test needs of the process that runs them."""

from __future__ import annotations

import signal

# A shell without job control starts background commands with Ctrl-C ignored, and what they start inherits that: the
# commands under test would never see the Ctrl-C that a test sends. Programs start with a handled signal at its default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
