"""What several suites need: a tiny encoder made on the spot, and the shared benchmark data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest
from chat_marks import CHAT_TEMPLATE, START, STOP

from freeal.types import Inputs

hypothesis.settings.register_profile("no seconds", deadline=None)
hypothesis.settings.load_profile("no seconds")

WORDS = (
    *("a", "an", "the", "film", "movie", "plot", "was", "is", "and", "but", "very", "not", "so"),
    *("good", "great", "fine", "charming", "bad", "awful", "dull", "boring"),
)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained two-layer BERT and a tokenizer that knows two dozen words."""
    return _encoder_in(tmp_path_factory.mktemp("tiny-encoder"), WORDS)


@pytest.fixture(scope="session")
def free_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tokens that no text has, as those of BERT have."""
    free = [f"[unused{number}]" for number in range(4)]
    return _encoder_in(tmp_path_factory.mktemp("free-encoder"), [*free, *WORDS])


def _encoder_in(folder: Path, words: Sequence[str]) -> Path:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from freeal.models import quiet

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes))
    with quiet():
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained two-layer Qwen2 whose tokens are bytes."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    place = tmp_path_factory.mktemp("tiny-chat")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|endoftext|>", START, STOP)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=STOP, pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(place)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    config = Qwen2Config(vocab_size=len(fast), initializer_range=0.3, **sizes, **heads)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def reviews() -> Inputs:
    """Twenty-four short texts; the odd ones praise, the even ones do not."""
    opinions = ("bad", "good", "awful", "great", "dull", "fine", "boring", "charming")
    frames = ("the film was {}", "a very {} movie and so {} a plot", "{}")
    return Inputs([frame.format(*[word] * frame.count("{}")) for frame in frames for word in opinions])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the benchmark data, or a skip."""
    root = Path(__file__).parent.parent
    folder = Path(os.environ.get("FREEAL_SHARED", root / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder}: no shared data here; set FREEAL_SHARED")
    return folder
