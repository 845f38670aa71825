"""Device, precision, threads and memory of a run: chosen here when the config says ``auto``."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

import torch

from sousa_bench import __version__
from sousa_bench.errors import ConfigError, first_line
from sousa_bench.system.processor import processor

CONTEXT_BYTES = 2**30
"""What CUDA's context and libraries take at most beside what the allocator counts."""
PACKAGES = ("torch", "torchaudio", "transformers", "peft", "pytorch-lightning", "hydra-core", "numpy")


def choose_accelerator(wanted: str) -> str:
    """``gpu`` or ``cpu`` for ``auto``; what was asked for otherwise.

    Raises:
        ConfigError: A GPU was asked for and there is none.
    """
    if wanted == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu, but torch sees no CUDA device; use trainer.accelerator=cpu")
    if wanted == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_precision(wanted: str, accelerator: str) -> str:
    """Lightning's name of the precision; ``auto`` is bf16-mixed on a GPU that has it and 32-true elsewhere.

    Where a CPU is to train in bfloat16, ``sweep.settled_precision`` has put that in the place of ``auto``.
    """
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if accelerator == "gpu" and torch.cuda.is_bf16_supported() else "32-true"


def set_up(accelerator: str) -> None:
    """Process-wide switches: as many threads as the supervisor granted, TF32 products on a GPU."""
    if threads := os.environ.get("SOUSA_BENCH_THREADS"):
        torch.set_num_threads(int(threads))
    if accelerator == "gpu":
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats()


def check_compiler(accelerator: str) -> None:
    """See that torch.compile works, on a function of one line.

    Raises:
        ConfigError: It doesn't, for want of a compiler or of Python's headers.
    """
    device = "cuda" if accelerator == "gpu" else "cpu"
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever the toolchain lacks
        raise ConfigError(
            f"trainer.compile=true: torch.compile doesn't work here ({first_line(error)}). On the CPU it "
            "needs g++ (or CXX=…) and Python's headers; or leave it false"
        ) from error


def compiler_refusal(error: Exception) -> ConfigError | None:
    """What to say of a network that torch.compile gave up on; None for any other error."""
    if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return None
    return ConfigError(
        f"trainer.compile=true: torch.compile can't compile this network ({first_line(error)}); leave it false"
    )


def peak_memory(accelerator: str) -> int:
    """Bytes: the most that the GPU's allocator held, or that this process had resident."""
    if accelerator == "gpu":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gpu_memory(accelerator: str) -> dict[str, Any]:
    """What a sweep asks of a run before it puts another beside it; empty without a GPU.

    Returns:
        ``gpu_memory``: ``need``, the bytes that this process takes at most so far, and the GPU's ``free`` and
        ``total`` bytes, all processes counted, and ``uuid``.
    """
    if accelerator != "gpu":
        return {}
    free, total = torch.cuda.mem_get_info()
    need = torch.cuda.max_memory_reserved() + CONTEXT_BYTES
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    return {"gpu_memory": {"need": need, "free": free, "total": total, "uuid": uuid}}


def environment(accelerator: str, precision: str) -> dict[str, Any]:
    """Versions, machine and device, for the result file."""
    device = torch.cuda.get_device_name() if accelerator == "gpu" else processor()
    return {
        "python": platform.python_version(),
        "sousa_bench": __version__,
        **{name.replace("-", "_"): version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "hostname": platform.node(),
        "accelerator": accelerator,
        "device": device,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }
