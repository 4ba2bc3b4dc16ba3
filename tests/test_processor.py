"""Where it is computed, in what precision, and memory that is given back."""

import pytest

from freeal import processor
from freeal.processor import bfloat16_is_faster, multiplies_bfloat16, pick_device


@pytest.mark.parametrize(
    ("described", "faster"),
    [
        ("vendor_id: GenuineIntel, flags: avx512_bf16 amx_bf16", True),
        ("vendor_id: GenuineIntel, flags: avx512_bf16", False),
        ("vendor_id: AuthenticAMD, flags: avx512_bf16", True),
        ("vendor_id: AuthenticAMD, flags: avx2", False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_with_it(described, faster):
    assert multiplies_bfloat16(described) == faster


def test_where_the_kernel_does_not_describe_the_processor_float32_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "FLAGS", tmp_path / "cpuinfo")
    assert not multiplies_bfloat16()


def test_a_gpu_that_only_emulates_bfloat16_is_no_faster_with_it(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not bfloat16_is_faster("cuda:1")


def test_a_device_that_is_named_is_taken():
    pytest.importorskip("torch")
    assert pick_device("cuda:1") == "cuda:1"
    assert pick_device("auto") in {"cuda", "mps", "cpu"}


def test_freed_memory_is_given_back(monkeypatch):
    asked = []

    class Library:
        def malloc_trim(self, kept):
            asked.append(kept)

    monkeypatch.setattr(processor.ctypes, "CDLL", lambda name: Library())
    processor.give_memory_back()
    assert asked == [0]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_freed_memory_cannot_be_given_back_nothing_happens(monkeypatch, error):
    def library(name):
        raise error

    monkeypatch.setattr(processor.ctypes, "CDLL", library)
    processor.give_memory_back()
