"""Everything freeal raises on purpose.

FreealError
├── ConfigError      a setting is wrong, unknown or contradictory          exit 2
│   └── Unfit            settings that do not serve this kind of task, or this LLM
├── PromptError      a prompt file cannot be used                          exit 2
├── DataError        a data file, row or column cannot be used             exit 2
├── ModelError       weights are missing, incomplete or not what they say  exit 2
├── LLMError         the LLM as a whole does not work (server, key, model) exit 4, 5
│   ├── LLMUnavailable   it did not answer; the same run may be resumed later
│   └── Unreadable       it answered, and nothing of it can be used: of another way of asking it may
├── BudgetError      the calls or the money allowed are spent              exit 9
│   └── CallsSpent       the calls are; what has been answered is worth a round
├── TrainingError    a student cannot be trained on these labels           exit 10
├── LockError        another process works in the run directory            exit 6
├── ChangedError     a run is resumed with other settings or data          exit 7
└── RunError         a run directory cannot be written, resumed or read    exit 8

A failed *item* is data (`problem=`); a failed *world* is one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FreealError(Exception):
    """Base of every error freeal raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(FreealError):
    """A setting is wrong, unknown or contradictory."""


class Unfit(ConfigError):
    """Settings that do not serve this kind of task, or this LLM: a study leaves out the method that has them."""


class PromptError(FreealError):
    """A prompt file cannot be used."""


class DataError(FreealError):
    """A data file, a row or a column cannot be used."""


class ModelError(FreealError):
    """Model weights are missing, incomplete, or not what they say they are."""


class LLMError(FreealError):
    """The LLM as a whole does not work: wrong key, unknown model, refused request."""

    exit_code = 4


class LLMUnavailable(LLMError):
    """The LLM did not answer; the run can be resumed later."""

    exit_code = 5


class Unreadable(LLMError):
    """The LLM answered, and no answer of a pass can be used; asked in another way, or about more, it may do."""


class BudgetError(FreealError):
    """The calls or the money allowed are spent; the run can be resumed with more."""

    exit_code = 9


class CallsSpent(BudgetError):
    """The calls allowed are made: rows without an answer stay without one."""


class RunError(FreealError):
    """A run directory cannot be written, resumed or read."""

    exit_code = 8


class TrainingError(FreealError):
    """A student cannot be trained: its loss was not finite, twice."""

    exit_code = 10


class LockError(FreealError):
    """Another process works in the run directory."""

    exit_code = 6


class ChangedError(FreealError):
    """A run is resumed with settings or data that would change its answers."""

    exit_code = 7


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message that names the known word most like `word`; empty if none is.

    Example:
        >>> did_you_mean("epohcs", ["epochs", "model"]), did_you_mean("x", ["epochs"])
        ("; did you mean 'epochs'?", '')
    """
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
