"""Which models there are: variants, sizes, licences, checkpoints, and what of them lies on this disk.

python -m sousa_bench.models
"""

from __future__ import annotations

import sys

from sousa_bench.catalogue.list_models import main

if __name__ == "__main__":
    sys.exit(main())
