"""What is published of each model beside its config: paper, licence, address, pretraining. Imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from sousa_bench.models.audioset import names

AUDIOSET = "AudioSet labels"
SELF_SUPERVISED = "self-supervised"
CAPTIONS = "captions"
SPEECH = "speech"
TRANSCRIPTS = "speech with text"
EMBEDDED = "embedded"
FURTHER = "sousa_bench.pretrain"
NOTHING = "none"
"""Kinds of pretraining: the last labels that a file has seen, or what it heard without any; ``self-supervised`` is on
sounds of all kinds, ``speech`` the same on speech alone. After a comma stands what went on from there."""

HEADER = "sousa_bench"
"""The entry of an embedded file's metadata."""


@dataclass(frozen=True)
class CheckpointSource:
    """Where a model's official weights are published.

    Attributes:
        hub: Hub id (``owner/name``), or None where the authors publish files elsewhere.
        file: File inside the hub's repository.
        url: Any other address that ``model.checkpoint`` takes (a URL, optionally ``…#sha256=<hex>``; ``hf://…``).
        license: SPDX name of the weights' licence.
        headless: The pretraining of those of its files that have no head; a head is AudioSet's.
    """

    hub: str | None = None
    file: str = "model.safetensors"
    url: str | None = None
    license: str | None = None
    headless: str | None = None

    @property
    def address(self) -> str:
        """What ``model.checkpoint`` would say for this source."""
        return (f"hf://{self.hub}/{self.file}" if self.hub else self.url) or ""

    def of(self, numbers: Any) -> CheckpointSource:
        """The same for a variant, whose numbers may name a file of its own as ``checkpoint``."""
        return replace(self, url=numbers.checkpoint) if hasattr(numbers, "checkpoint") else self

    def license_of(self, sha256: str) -> str | None:
        """The licence of a file, where its hash is the one that the address states."""
        return self.license if self.address.endswith(f"#sha256={sha256}") else None

    def pretraining(self, outputs: int | None) -> str | None:
        """What a file has seen last, by the outputs of its head, if it has one; None where nobody says it."""
        if outputs is None:
            return self.headless
        return AUDIOSET if outputs == len(names()) else None


@dataclass(frozen=True)
class Published:
    """What is published of a model.

    Attributes:
        architecture: In few words.
        paper: Number at arXiv, or None.
        source: Licence of the weights, and where they are unless a variant's numbers say it.
        headless: The variants whose files have no head.
        by_hand: The variants whose files no program can fetch → the licence of these.
        fetched: Whether ``weights=official`` alone fetches some.
    """

    architecture: str
    paper: str | None
    source: CheckpointSource
    headless: tuple[str, ...] = ()
    by_hand: Mapping[str, str] = field(default_factory=dict)
    fetched: bool = True

    def address(self, variant: str, numbers: Mapping[str, Any]) -> str | None:
        """Where a variant's official weights are fetched from; None where that is by hand."""
        if variant in self.by_hand:
            return None
        address: str | None = numbers.get("checkpoint", self.source.address)
        return address or None

    def licence(self, variant: str) -> str | None:
        """SPDX name of the licence of a variant's official weights."""
        return self.by_hand.get(variant, self.source.license)

    def pretraining(self, variant: str) -> str | None:
        """What the official weights of a variant have seen last."""
        return self.source.headless if variant in self.headless else AUDIOSET


PUBLISHED = {
    "ast": Published(
        "vision transformer on overlapping patches",
        "2104.01778",
        CheckpointSource(hub="MIT/ast-finetuned-audioset-10-10-0.4593", license="BSD-3-Clause"),
    ),
    "htsat": Published(
        "Swin transformer on a folded spectrogram",
        "2202.00874",
        CheckpointSource(hub="laion/clap-htsat-unfused", license="Apache-2.0", headless=CAPTIONS),
        headless=("clap",),
        by_hand={"official": "MIT"},
    ),
    "beats": Published(
        "transformer with gated relative positions",
        "2212.09058",
        # The authors publish through share links, which no program can follow. This is the self-supervised iter3+ model
        # in a public copy, pinned to a commit and to the SHA-256 that the authors' own file has.
        CheckpointSource(
            url=(
                "https://huggingface.co/datasets/Bencr/beats-checkpoints/resolve/"
                "082fb1849d55bef1ee52ee8d8910b3adc69d4bc8/BEATs_iter3_plus_AS2M.pt"
                "#sha256=d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34"
            ),
            license="MIT",
            headless=SELF_SUPERVISED,
        ),
        headless=("official",),
    ),
    "efficientat": Published("MobileNetV3", "2211.04772", CheckpointSource(license="MIT")),
    "ced": Published(
        "vision transformer, distilled from an ensemble", "2308.11957", CheckpointSource(license="Apache-2.0")
    ),
    "dasheng": Published(
        "CED's network, pretrained without labels",
        "2406.06992",
        CheckpointSource(license="Apache-2.0", headless=SELF_SUPERVISED),
        headless=("official", "dasheng-06B", "dasheng-12B"),
    ),
    "eat": Published(
        "post-norm vision transformer, also SSLAM",
        "2401.03497",
        CheckpointSource(license="MIT", headless=SELF_SUPERVISED),
        headless=("eat-pretrain", "sslam-pretrain", "eat-large-pretrain"),
    ),
    "passt": Published(
        "vision transformer on overlapping patches", "2110.05069", CheckpointSource(license="Apache-2.0")
    ),
    "openbeats": Published(
        "BEATs' network, other weights",
        "2507.14129",
        CheckpointSource(headless=SELF_SUPERVISED),  # Its repositories' file names are not fixed; no licence was found.
        headless=("official", "large"),
        fetched=False,
    ),
    "hubert": Published(
        "transformer on the waveform, pretrained on speech",
        "2106.07447",
        CheckpointSource(license="Apache-2.0", headless=SPEECH),
        headless=("official", "hubert-large", "hubert-xlarge"),
    ),
    "wavlm": Published(
        "HuBERT's network with relative positions",
        "2110.13900",
        CheckpointSource(license="CC-BY-SA-3.0", headless=SPEECH),
        headless=("official", "wavlm-base", "wavlm-large"),
    ),
    "whisper": Published(
        "encoder of a recogniser of speech",
        "2212.04356",
        CheckpointSource(license="Apache-2.0", headless=TRANSCRIPTS),
        headless=(
            *("official", "whisper-tiny", "whisper-small", "whisper-medium"),
            *("whisper-large-v2", "whisper-large-v3"),
        ),
    ),
    "cnn": Published("convolutions, trained from nothing", None, CheckpointSource(), fetched=False),
}
"""Model, as in ``conf/model`` → what is published of it."""

FROM_NOTHING = ("cnn",)
"""Those of them that nobody has pretrained: baselines of what the others do without pretraining."""


@dataclass(frozen=True)
class Size:
    """What a variant's network costs, with 40 classes.

    Attributes:
        sample_rate: Hz that it hears.
        parameters: Of its backbone.
        multiply_adds: Of its backbone, for a clip of 5 s.
    """

    sample_rate: int
    parameters: int
    multiply_adds: int


@cache
def sizes() -> dict[tuple[str, str], Size]:
    """Model and variant → size, as recorded: to build the networks would take half a minute."""
    with (Path(__file__).parent / "sizes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("sample_rate", "parameters", "multiply_adds")
    return {(row["model"], row["variant"]): Size(*(int(row[key]) for key in keys)) for row in rows}
