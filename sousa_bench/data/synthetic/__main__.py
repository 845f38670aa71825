"""Write a synthetic dataset by hand, and say how quick that was: `python -m sousa_bench.data.synthetic FOLDER`."""

import sys
import time
from pathlib import Path

from sousa_bench.data.synthetic import DOMAINS
from sousa_bench.data.synthetic.writer import write_dataset
from sousa_bench.errors import UserError
from sousa_bench.system.arguments import command_parser


def main(arguments: list[str] | None = None) -> int:
    """Write the dataset and print the clips per second.

    Returns:
        Exit code: 0, or 2 for an impossible request.
    """
    parser = command_parser("sousa_bench.data.synthetic", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the dataset goes; it must not hold one already")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domain", default="target", help=f"one of {', '.join(DOMAINS)}")
    parser.add_argument("--workers", type=int, default=None, help="processes; by default one a core")
    wanted = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        if (wanted.folder / "labels" / "samples.parquet").exists():
            raise UserError(f"{wanted.folder} already holds a dataset: give another folder, or delete that one.")
        write_dataset(
            wanted.folder,
            wanted.clips,
            wanted.seed,
            domain=wanted.domain,
            workers=wanted.workers,
            progress=lambda done, total: print(f"\r{done}/{total} clips", end="", file=sys.stderr, flush=True),
        )
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    print(f"\r{wanted.clips} clips in {seconds:.1f} s: {wanted.clips / seconds:.0f} clips/s -> {wanted.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
