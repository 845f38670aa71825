"""One process of `write_dataset`: `python -m sousa_bench.data.synthetic.worker ORDER` (started by the writer only).

Prints the number of clips of each block that it has written. Ends when its parent does.
"""

import json
import os
import sys
import threading
from pathlib import Path

from sousa_bench.data.synthetic.generator import Generator
from sousa_bench.data.synthetic.writer import BLOCK, write_blocks


def _end_with_parent() -> None:
    """The parent holds our standard input open: its end is the parent's end."""
    sys.stdin.read()
    os._exit(1)


def main(order: str) -> None:
    """Write every `step`-th block from block `first` on.

    Args:
        order: JSON with clips, seed, domain, split_players, folder, first, step.
    """
    wanted = json.loads(order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    generator = Generator(wanted["clips"], wanted["seed"], wanted["domain"], tuple(wanted["split_players"]))
    blocks = range(wanted["first"], -(-generator.clips // BLOCK), wanted["step"])
    for made in write_blocks(generator, Path(wanted["folder"]), blocks):
        print(made, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
