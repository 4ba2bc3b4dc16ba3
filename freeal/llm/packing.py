"""How many prompts become few forward passes, without padding: pure bookkeeping over token ids.

Three ideas, all exact:

* **Shared prefixes are read once.** Sorted prompts form a tree; its upper branches (system text,
  demonstrations) are put into the key-value cache once, depth first, so that memory holds one path.
* **What is left of each prompt is packed** end to end into one sequence; a mask keeps the prompts apart.
* **Labels are a tree too.** A label is told from the others by its shortest prefix that no other label
  shares; the tokens before the last of each such prefix hang behind the prompt as a tree, so that one
  pass gives the probability of every label, of several tokens and with shared beginnings alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from freeal.types import BoolArray, IntArray

WORTH_SHARING = 16
"""A branch shorter than this is read again for each prompt: another pass would cost more than it saves."""

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class ChoiceTree:
    """The labels as a tree of tokens.

    `tokens[i]` hangs below node `parents[i]` (0 is the end of the prompt, i + 1 the token itself);
    `depths[i]` counts from 1. `paths` holds for each choice the (node, next token) pairs whose
    log-probabilities add up to that of the choice.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def spelt(self) -> list[tuple[int, ...]]:
        """The tokens that lead to each node, that of the end of the prompt (none) first."""
        tails: list[tuple[int, ...]] = [()]
        for token, parent in zip(self.tokens, self.parents, strict=True):
            tails.append((*tails[parent], token))
        return tails

    def ancestors(self) -> BoolArray:
        """(t, t) whether token i of the tree may see token j: itself and what it hangs from."""
        seen = np.eye(len(self), dtype=bool)
        for i, parent in enumerate(self.parents):
            if parent:
                seen[i] |= seen[parent - 1]
        return seen


def choice_tree(choices: Sequence[Tokens]) -> ChoiceTree:
    """The tree of `choices`, each the tokens of a whole reply with its end-of-turn token.

    Raises:
        ValueError: two choices are equal, or one begins with the whole of another.

    Example:
        >>> tree = choice_tree([[1, 2, 9], [1, 3, 9], [4, 9]])
        >>> tree.tokens, tree.paths
        ((1,), (((0, 1), (1, 2)), ((0, 1), (1, 3)), ((0, 4),)))
    """
    nodes: dict[tuple[int, ...], int] = {(): 0}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    paths: list[tuple[tuple[int, int], ...]] = []
    for i, choice in enumerate(choices):
        needed = _distinguishing_length(choice, [*choices[:i], *choices[i + 1 :]])
        path = []
        for depth in range(needed):
            here = tuple(choice[:depth])
            if here not in nodes:
                nodes[here] = len(tokens) + 1
                tokens.append(choice[depth - 1])
                parents.append(nodes[here[:-1]])
                depths.append(depth)
            path.append((nodes[here], choice[depth]))
        paths.append(tuple(path))
    return ChoiceTree(tuple(tokens), tuple(parents), tuple(depths), tuple(paths))


def _distinguishing_length(choice: Tokens, others: Sequence[Tokens]) -> int:
    longest = max((common_length(choice, other) for other in others), default=0)
    if longest >= len(choice):
        raise ValueError(f"choices cannot be told apart: {list(choice)} is the beginning of another, or the same")
    return longest + 1


def common_length(a: Tokens, b: Tokens) -> int:
    """How many tokens `a` and `b` share from the start."""
    limit = min(len(a), len(b))
    for i in range(limit):
        if a[i] != b[i]:
            return i
    return limit


def shared_length(group: Sequence[Tokens]) -> int:
    """How many leading tokens a *sorted* group shares, leaving at least one token to each."""
    return min(common_length(group[0], group[-1]), min(len(tokens) for tokens in group) - 1)


def branches(prompts: Sequence[Tokens], depth: int) -> Iterator[tuple[list[int], bool]]:
    """Split sorted prompts, of which `depth` tokens are read already, into runs.

    Yields:
        (indices into `prompts`, whether the run shares a further prefix worth reading once).
    """
    loose: list[int] = []
    start = 0
    for end in range(1, len(prompts) + 1):
        if end < len(prompts) and common_length(prompts[end - 1], prompts[end]) >= depth + WORTH_SHARING:
            continue
        run = list(range(start, end))
        if len(run) > 1 and shared_length([prompts[i] for i in run]) >= depth + WORTH_SHARING:
            yield run, True
        else:
            loose += run
        start = end
    if loose:
        yield loose, False


def packs(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of consecutive items whose lengths add up to at most `budget` (a longer item stands alone)."""
    pack: list[int] = []
    total = 0
    for i, length in enumerate(lengths):
        if pack and total + length > budget:
            yield pack
            pack, total = [], 0
        pack.append(i)
        total += length
    if pack:
        yield pack


@dataclass(frozen=True, slots=True)
class Pack:
    """One packed sequence of N tokens behind `past` cached ones.

    `tokens` (N,), `positions` (N,), `mask` (N, past + N): True where a token may look; `readout` (r, 1 + t):
    for each of its r prompts the places of the prompt's end and of the choice tree's t tokens.
    """

    tokens: IntArray
    positions: IntArray
    mask: BoolArray
    readout: IntArray


def pack(prompts: Sequence[Tokens], tree: ChoiceTree, past: int) -> Pack:
    """Lay the unread tails of `prompts`, each with the choice tree behind it, into one sequence."""
    t = len(tree)
    size = sum(len(tokens) + t for tokens in prompts)
    tokens, positions = np.empty(size, np.int64), np.empty(size, np.int64)
    mask = np.zeros((size, past + size), bool)
    mask[:, :past] = True
    readout = np.empty((len(prompts), 1 + t), np.int64)
    among, depths = tree.ancestors(), np.array(tree.depths, np.int64)
    start = 0
    for i, prompt in enumerate(prompts):
        end = start + len(prompt)
        tokens[start:end], positions[start:end] = prompt, past + np.arange(len(prompt))
        tokens[end : end + t], positions[end : end + t] = tree.tokens, past + len(prompt) - 1 + depths
        mask[start:end, past + start : past + end] = np.tri(len(prompt), dtype=bool)
        mask[end : end + t, past + start : past + end] = True
        mask[end : end + t, past + end : past + end + t] = among
        readout[i] = np.r_[end - 1, end : end + t]
        start = end + t
    return Pack(tokens, positions, mask, readout)
