"""What a language model in this process makes of a text when it is asked about it: hidden states as vectors.

The state of a middle layer where the answer would begin tells the classes of a task apart far better than the model's
own words do (linear probes: Alain & Bengio, 2016; of language models: Burns et al., ICLR 2023). So a linear student on
these vectors learns in seconds what a small encoder would have to be fine-tuned for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from freeal.config import LocalConfig
from freeal.events import Emit, Progress, ignore
from freeal.ledger import Ledger, key_of, question_of
from freeal.llm.hidden import Layer
from freeal.llm.local import LocalLLM
from freeal.llm.packing import Tokens
from freeal.prompts import Prompt
from freeal.types import Example, FloatArray


class StatesEmbedder:
    """The hidden state of one layer at the place where the answer to the prompt, without demonstrations, begins.

    From each state that of the empty text is taken off, asked in the same way, and of each coordinate the root is
    drawn, its sign kept (Perronnin et al., ECCV 2010): a few coordinates of such states are a hundred times as large as
    the others. A text's vector depends on no other text, but for rounding. States that came with the answers of
    the run are in its ledger; for the others, layers above the one read are not computed, and they are kept there, too:
    whoever goes on with the run has the same.

    Args:
        config: the model.
        prompt: what it is asked; columns besides the text are empty.
        depth: which layer, as a share of all.
        emit: hears of downloads and progress.
        ledger: that of the run.

    Raises:
        LLMError: the model cannot be loaded.
    """

    def __init__(
        self,
        config: LocalConfig,
        prompt: Prompt,
        depth: float,
        emit: Emit = ignore,
        ledger: Ledger | None = None,
    ) -> None:
        self.llm = LocalLLM(config, emit, depth)
        self.prompt = prompt
        self.emit = emit
        self.ledger = ledger

    @property
    def description(self) -> Mapping[str, str | int]:
        return {
            "kind": "hidden_states",
            "model": str(self.llm.identity["model"]),
            "layer": self._layer.number,
            "dimensions": int(self._layer.model.config.get_text_config().hidden_size),
        }

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 of length one each; of a text that is too long for the model the end is left out."""
        vectors = np.zeros((len(texts), int(self.description["dimensions"])), np.float32)
        together = self.llm.reader.chunk
        for start in range(0, len(texts), together):
            some = texts[start : start + together]
            for i, state in enumerate(self._states(some), start):
                vectors[i] = self._vector(state)
            if len(texts) > together:
                self.emit(Progress("reading hidden states", start + len(some), len(texts), "texts"))
        return vectors

    def _states(self, texts: Sequence[str]) -> list[FloatArray]:
        """(d,) of each text: as it is kept, and if it is not yet, it is computed and kept.

        That of the empty text is always the one that is taken off: nothing must be left of it, nor what the last bits
        of another reading would make.
        """
        of_text = {text: self._key(text) for text in dict.fromkeys(texts) if text}
        known = {"": self._empty, **self._kept(of_text)}
        new = [text for text in of_text if text not in known]
        if new:
            known.update(zip(new, self._read(new), strict=True))
        if new and self.ledger is not None:
            self.ledger.keep_states({of_text[text]: self._layer.kept(known[text]) for text in new})
            known |= self._kept({text: of_text[text] for text in new})
        return [known[text] for text in texts]

    def _kept(self, of_text: Mapping[str, str]) -> dict[str, FloatArray]:
        """The state of each text of which the ledger has one, by the text's key there."""
        if self.ledger is None:
            return {}
        found = {text: self._layer.state_in(self.ledger.state(key)) for text, key in of_text.items()}
        return {text: state for text, state in found.items() if state is not None}

    def _vector(self, state: FloatArray) -> FloatArray:
        apart = state - self._empty
        rooted = np.sign(apart) * np.sqrt(np.abs(apart))
        length = np.linalg.norm(rooted)
        d = len(rooted)  # the empty text itself has no direction: a fixed one
        return rooted / length if length > 0 else np.full(d, d**-0.5, np.float32)

    def _key(self, text: str) -> str:
        return key_of(self.llm.identity, question_of(self.prompt.request(Example("", text))))

    def _tokens(self, text: str) -> Tokens:
        """The prompt about `text`, of which so much of the end is left out that the model can read it."""
        while True:
            tokens = self.llm.chats.tokens(self.prompt.render(Example("", text)))
            if len(tokens) <= self.llm.longest or not text:
                return tokens
            text = text[: len(text) * self.llm.longest // len(tokens)]

    @cached_property
    def _layer(self) -> Layer:
        layer = self.llm.reader.layer
        assert layer is not None
        return layer

    @cached_property
    def _empty(self) -> FloatArray:
        """(d,) the state that says nothing of a text, but all of the prompt."""
        return self._read([""])[0]

    def _read(self, texts: Sequence[str]) -> list[FloatArray]:
        """(d,) float32 of each text."""
        return self.llm.states([self._tokens(text) for text in texts])
