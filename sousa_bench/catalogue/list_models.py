"""The command ``python -m sousa_bench.models``: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.system.arguments import command_parser, exit_code, positive
from sousa_bench.system.text_table import in_columns, scaled


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.models",
        description="The models, their variants, sizes, licences and checkpoints, and what of them lies on this disk. "
        "Nothing is fetched.",
        epilog="Parameters and multiply-adds are those of the backbone with 40 classes, for a clip of 5 s. The size of "
        "a file that isn't here (~) is reckoned from its parameters.",
    )
    made.add_argument("models", nargs="*", metavar="MODEL", help="only these, with the checkpoints of their variants")
    made.add_argument("--variants", nargs="+", metavar="NAME", help="only variants of these names")
    made.add_argument(
        "--latency", action="store_true",
        help="time each listed network on the CPU: a clip of 5 s, waveform to logits (random weights will do)",
    )  # fmt: skip
    made.add_argument("--threads", type=positive, metavar="N", help="CPU threads (as many as there are cores)")
    made.add_argument("--json", action="store_true", help="the same facts as JSON")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 with one message."""
    made = parser()
    options = made.parse_intermixed_args(arguments)
    if options.latency and not (options.models or options.variants):
        made.error("--latency runs every network that is listed: name models or --variants")
    if options.threads and not options.latency:
        made.error("--threads is for --latency")

    def work() -> None:
        from sousa_bench.catalogue.model_facts import model_facts

        found = _chosen(model_facts(), options.models, options.variants)
        if options.latency:
            from sousa_bench.catalogue.cpu_latency import add_latency

            add_latency(found, options.threads)
        print(json.dumps(found, indent=2) if options.json else printed(found, checkpoints=bool(options.models)))

    return exit_code(work, refused=lambda _: 2)


def _chosen(found: list[dict[str, Any]], models: Sequence[str], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """The models and variants of these names; all where none is given.

    Raises:
        ConfigError: There is none of a name.
    """
    known = [model["model"] for model in found]
    for name in models:
        if name not in known:
            raise ConfigError(f"there is no model {name}; models: {', '.join(known)}")
    kept = [model for model in found if not models or model["model"] in models]
    if names is None:
        return kept
    known = list(dict.fromkeys(row["variant"] for model in kept for row in model["variants"]))
    for name in names:
        if name not in known:
            raise ConfigError(f"no variant {name}; variants: {', '.join(known)}")
    narrowed = [{**model, "variants": [row for row in model["variants"] if row["variant"] in names]} for model in kept]
    return [model for model in narrowed if model["variants"]]


def printed(found: Sequence[dict[str, Any]], *, checkpoints: bool) -> str:
    """The facts as tables of at most 100 columns."""
    tables = [[("model", "architecture", "kHz", "licence", "arXiv"), *_models(found)], [_HEADER, *_variants(found)]]
    if checkpoints:
        tables.append([("model.variant", "checkpoint"), *_checkpoints(found)])
    if any("latency_ms" in row for model in found for row in model["variants"]):
        tables.append([("model", "variant", "CPU latency", "threads"), *_latencies(found)])
    return "\n\n".join(in_columns([*rows]) for rows in tables)


_NO_ADDRESS = {
    "official": "a file of yours: weights=official model.checkpoint=FILE",
    "embedded": "in the package: weights=embedded",
    "random": "none: weights=random",
}
_HEADER = ("model", "variant", "parameters", "multiply-adds", "pretraining", "file", "on this disk")


def _models(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for model in found:
        rates = dict.fromkeys(f"{row['sample_rate'] / 1000:g}" for row in model["variants"])
        official = [row["licence"] for row in model["variants"] if row["weights"] == "official"]
        licences = dict.fromkeys(filter(None, official))
        yield model["model"], model["architecture"], ", ".join(rates), ", ".join(licences), model["paper"] or ""


def _variants(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for model in found:
        for number, row in enumerate(model["variants"]):
            size = "" if row["bytes"] is None else f"{'' if row['on_disk'] else '~'}{scaled(row['bytes'])}B"
            yield (
                "" if number else model["model"],
                row["variant"],
                scaled(row["parameters"]),
                scaled(row["multiply_adds"]),
                row["pretraining"] or "",
                size,
                row["on_disk"] or ("" if row["bytes"] is None else "no"),
            )


def _checkpoints(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for model in found:
        for row in model["variants"]:
            address = str(row["checkpoint"] or _NO_ADDRESS[row["weights"]]).partition("#")[0].partition("@")[0]
            file_alone = address.startswith(("http://", "https://"))
            yield f"{model['model']} {row['variant']}", address.rpartition("/")[2] if file_alone else address


def _latencies(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for model in found:
        for row in model["variants"]:
            yield model["model"], row["variant"], f"{row['latency_ms']:,.1f} ms", str(row["threads"])
