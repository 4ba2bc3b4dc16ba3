"""Eight bits: near what thirty-two compute, and each token's answer its own."""

import numpy as np
import pytest

from freeal.config import LocalConfig
from freeal.errors import ConfigError
from freeal.llm import Message, Request

torch = pytest.importorskip("torch")

LABELS = ("sport", "sports news", "science", "world")
TEXTS = ("stars", "a match", "a match was lost", "votes are counted in the north", "the cup")


def test_numbers_times_scales_are_the_rows_within_half_a_step():
    from freeal.llm.int8 import in_eight_bits

    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [100], [0.01], [3], [0]]
    )
    numbers, scale = in_eight_bits(rows)
    assert numbers.dtype == torch.int8
    assert numbers.abs().amax(1).tolist() == [127, 127, 127, 127, 0]
    assert bool(((numbers * scale - rows).abs() <= 0.501 * scale).all())


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_computed_nearly_as_before_and_finely_nearer(bias):
    from freeal.llm.int8 import Int8Linear

    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 96, bias=bias), torch.randn(2, 7, 64)
    with torch.inference_mode():
        exact = layer(x)
        apart = [float((Int8Linear(layer, fine)(x) - exact).norm() / exact.norm()) for fine in (False, True)]
    assert Int8Linear(layer)(x).shape == exact.shape
    assert 0 < apart[1] < 0.8 * apart[0] < 0.02


def test_what_eight_bits_of_inputs_leave_is_in_the_other_eight():
    from freeal.llm.int8 import Int8Linear

    layer = torch.nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 1.0, 1.0]])
    x = torch.tensor([[100.0, 0.3, 0.01]])
    with torch.inference_mode():
        assert Int8Linear(layer)(x).item() == pytest.approx(100.0, abs=1e-4)
        assert Int8Linear(layer, fine=True)(x).item() == pytest.approx(100.31, abs=0.002)


def test_a_token_is_read_the_same_in_any_company():
    from freeal.llm.int8 import Int8Linear

    torch.manual_seed(0)
    layer, x = Int8Linear(torch.nn.Linear(32, 16)), torch.randn(6, 32)
    x[3] *= 1000
    with torch.inference_mode():
        assert torch.equal(layer(x)[:3], layer(x[:3]))


def test_linear_layers_are_rounded_and_nothing_else(tiny_chat):
    from transformers import AutoModelForCausalLM

    from freeal.llm.int8 import Int8Linear, rounded

    model = AutoModelForCausalLM.from_pretrained(tiny_chat)
    before = {name: type(each) for name, each in model.named_modules()}
    after = {name: type(each) for name, each in rounded(model).named_modules()}
    assert after == {name: Int8Linear if kind is torch.nn.Linear else kind for name, kind in before.items()}
    assert {each.dtype for each in model.buffers() if each.ndim == 2 and len(each) > 1} == {torch.int8}
    layer = model.model.layers[0]
    assert model.lm_head.fine
    assert layer.mlp.down_proj.fine
    assert not layer.mlp.up_proj.fine


def test_a_model_read_in_sixteen_bits_is_rounded_as_if_it_had_been_read_in_32(tiny_chat):
    from transformers import AutoModelForCausalLM

    from freeal.llm.int8 import rounded

    half, whole = (AutoModelForCausalLM.from_pretrained(tiny_chat, dtype=torch.bfloat16) for _ in range(2))
    found, wanted = rounded(half).state_dict(), rounded(whole.float()).state_dict()
    assert found.keys() == wanted.keys()
    assert {each.dtype for each in found.values()} == {torch.int8, torch.float32}
    for name, each in found.items():
        assert torch.equal(each, wanted[name]), name


@pytest.mark.parametrize(
    ("kept", "buffer", "read"),
    [
        (torch.bfloat16, torch.float32, [torch.bfloat16]),
        (torch.float16, torch.float32, [torch.float16]),
        (torch.float32, torch.float32, [torch.float32]),
        (torch.bfloat16, torch.bfloat16, [torch.bfloat16, torch.float32]),
    ],
)
def test_a_model_is_read_in_sixteen_bits_where_nothing_is_lost_by_it(tmp_path, kept, buffer, read):
    from safetensors.torch import save_file

    from freeal.llm.int8 import read_for_rounding

    save_file({"weight": torch.ones(2, 2, dtype=kept), "bias": torch.ones(2, dtype=kept)}, tmp_path / "a.safetensors")
    asked = []

    def load(dtype):
        asked.append(dtype)
        model = torch.nn.Linear(2, 2)
        model.register_buffer("scale", torch.ones(1, dtype=torch.float32 if dtype == torch.float32 else buffer))
        return model

    read_for_rounding(tmp_path, load)
    assert asked == read


def test_an_llm_in_eight_bits_says_nearly_what_it_says_otherwise(tiny_chat):
    from freeal.llm.local import LocalLLM

    exact, rough = (
        LocalLLM(LocalConfig(model=str(tiny_chat), device="cpu", dtype=dtype)) for dtype in ("float32", "int8")
    )
    requests = [Request((Message("user", text),), LABELS) for text in TEXTS]
    said = [np.exp([reply.logprobs for reply in llm.complete(requests)]) for llm in (exact, rough)]
    assert rough.packed
    assert rough.identity["dtype"] == "int8"
    assert 0 < np.abs(said[0] - said[1]).max() < 0.05
    (written,) = rough.complete([Request((Message("user", "Write."),), max_tokens=4)])
    assert written.tokens_out <= 4


def test_eight_bits_on_a_gpu_are_refused():
    from freeal.llm.local import _dtype

    with pytest.raises(ConfigError, match=r"llm\.dtype: int8 .* runs on cuda: leave llm\.dtype out"):
        _dtype("int8", "cuda")
