"""What the data hold, and what difference a test on them could find, before any training.

python -m sousa_bench.data data=tiny data.root=/data/sousa
"""

from __future__ import annotations

import sys

from sousa_bench.inspection.inspect_data import main

if __name__ == "__main__":
    sys.exit(main())
