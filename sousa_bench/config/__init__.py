"""What a config says: composed, checked, overridden, fingerprinted. Imports no torch."""

from pathlib import Path

from sousa_bench.config.resolvers import register

register()


def conf_folder() -> Path:
    """The config groups: inside the package in a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
