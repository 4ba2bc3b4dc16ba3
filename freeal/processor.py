"""Where this machine computes, and what it computes quickly there."""

from __future__ import annotations

import ctypes
from pathlib import Path

FLAGS = Path("/proc/cpuinfo")


def pick_device(wanted: str) -> str:
    """The device of that name; `auto` is the first of cuda, mps and cpu that is there."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def bfloat16_is_faster(device: str) -> bool:
    """Whether `device` multiplies bfloat16 faster than float32; GPUs before Ampere only emulate it."""
    if device.startswith("cuda"):
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and multiplies_bfloat16()


def multiplies_bfloat16(described: str | None = None) -> bool:
    """Whether matrices of bfloat16 are multiplied faster than those of float32.

    With AMX they are, and with AVX512-BF16 on AMD's processors, which do in one step what Intel's do in two. Of the
    latter two cores (Emerald Rapids, AMX hidden by the hypervisor) reach 200 GFLOP/s in bfloat16, 340 in float32.

    Args:
        described: what the kernel says of the processor; by default of this one, nothing where it does not say.

    Example:
        >>> multiplies_bfloat16("vendor_id: GenuineIntel, flags: avx512_bf16")
        False
    """
    if described is None:
        try:
            described = FLAGS.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
    return "amx_bf16" in described or ("avx512_bf16" in described and "AuthenticAMD" in described)


def give_memory_back() -> None:
    """Give the system what was freed and is kept for later: after loading a model, or training, gigabytes of it.

    That is glibc's way; with other C libraries nothing is done.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # no such function, or, on Windows, no such library
        return
