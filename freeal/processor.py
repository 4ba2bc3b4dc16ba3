"""What this machine's processor computes quickly."""

from __future__ import annotations

from pathlib import Path

FLAGS = Path("/proc/cpuinfo")


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
