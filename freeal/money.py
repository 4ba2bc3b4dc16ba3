"""What calls cost, and a purse that is never overdrawn."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

from freeal.errors import BudgetError, CallsSpent
from freeal.llm import FRAME, Crowded, Reply, Request, longest_reply

TABLE = Path(__file__).parent / "prices.yaml"
MARGIN = 1.25
"""How much dearer than the dearest prompt so far, by its bytes, the next one may be."""

WARM = 20
"""Replies after which prompts are reckoned by those seen; before that, a byte is reckoned as a token."""


IN_A_BATCH = 0.5
"""What a request costs in a batch, against one that is answered at once."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens, in and out."""

    tokens_in: float
    tokens_out: float

    def times(self, factor: float) -> Price:
        return Price(self.tokens_in * factor, self.tokens_out * factor)

    def of(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@cache
def known() -> dict[str, Price]:
    """Prices by model, as listed by their makers; see the file for the day."""
    import yaml

    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {str(name): Price(float(p["in"]), float(p["out"])) for name, p in table["models"].items()}


def price_of(model: str) -> Price | None:
    """The price of `model`, or of the model it is a dated edition of; None if it is not in the table.

    Example:
        >>> price_of("gpt-4o-mini-2024-07-18") == price_of("gpt-4o-mini")
        True
    """
    table = known()
    name = model.rpartition("/")[2]
    fitting = [entry for entry in table if name == entry or name.startswith(f"{entry}-20")]
    return table[max(fitting, key=len)] if fitting else None


@dataclass
class Account:
    """What has been spent and is put aside, of one purse or of several."""

    spent: float = 0.0
    calls: int = 0
    reserved: float = 0.0
    under_way: int = 0
    lock: Lock = field(default_factory=Lock, repr=False)


@dataclass
class Purse:
    """Reserves the worst a request can cost before it is sent, and gives back what it did not.

    An attempt that a server may bill without having answered it counts with the worst it can have cost.

    Args:
        price: None if it is not known; then only calls are counted.
        replies: how many a request asks for (votes).
        budget: US dollars that may be spent, None for no limit.
        max_calls: calls that may be made, None for no limit.
        account: what the run has cost before; purses of different prices may share one.

    Example:
        >>> purse = Purse(Price(1.0, 2.0), budget=1.0)
        >>> held = purse.reserve(Request((), max_tokens=100_000))
        >>> round(held, 3), round(purse.settle(held, Reply("yes", None, 1_000, 10)), 5)
        (0.2, 0.00102)
    """

    price: Price | None = None
    budget: float | None = None
    max_calls: int | None = None
    replies: int = 1
    account: Account = field(default_factory=Account)
    _seen: int = 0
    _dearest: float = 0.0

    def reserve(self, request: Request) -> float:
        """US dollars put aside for one call.

        Raises:
            CallsSpent: there is no call left.
            BudgetError: it might cost more than is left; nothing is put aside.
            Crowded: it might, unless calls under way turn out cheaper than the worst.
        """
        worst, account = self.worst(request), self.account
        with account.lock:
            if self.max_calls is not None and account.calls >= self.max_calls:
                raise CallsSpent(f"all {self.max_calls:,} calls are made (stop.max_calls)")
            if self.budget is not None and account.spent + account.reserved + worst > self.budget:
                if account.under_way and account.spent + worst <= self.budget:
                    raise Crowded
                raise BudgetError(
                    f"the next call may cost {worst:.4f} dollars, and {account.spent:.4f} of {self.budget:.4f} are "
                    f"spent (stop.budget)"
                )
            account.under_way += 1
            account.calls += 1
            account.reserved += worst
        return worst

    def await_answer(self, worst: float) -> None:
        """Put aside for a call that an earlier process made, and whose answer may still come."""
        account = self.account
        with account.lock:
            account.under_way += 1
            account.calls += 1
            account.reserved += worst

    def settle(self, held: float, reply: Reply | None, request: Request | None = None) -> float:
        """US dollars the call did cost; None for one that came to nothing, which is then no call."""
        cost = self.price.of(reply.tokens_in, reply.tokens_out) if self.price and reply else 0.0
        account = self.account
        with account.lock:
            self._release(held)
            account.calls -= reply is None
            account.spent += cost
            if reply and request and reply.tokens_in:
                self._seen += 1
                self._dearest = max(self._dearest, reply.tokens_in / max(1, _bytes(request)))
        return cost

    def lose(self, held: float) -> None:
        """Count the worst of a call that may have been paid for, and brought nothing."""
        account = self.account
        with account.lock:
            self._release(held)
            account.spent += held

    def _release(self, held: float) -> None:
        account = self.account
        account.reserved = max(0.0, account.reserved - held)
        account.under_way = max(0, account.under_way - 1)

    def pay(self, reply: Reply) -> float:
        """US dollars of a reply whose call was made by a process that is gone."""
        cost = self.price.of(reply.tokens_in, reply.tokens_out) if self.price else 0.0
        account = self.account
        with account.lock:
            account.spent += cost
        return cost

    def worst(self, request: Request) -> float:
        """US dollars that a request costs at most."""
        if self.price is None:
            return 0.0
        a_byte = min(1.0, self._dearest * MARGIN) if self._seen >= WARM else 1.0
        return self.price.of(
            _bytes(request) * a_byte, (longest_reply(request) + FRAME * bool(request.choices)) * self.replies
        )


def _bytes(request: Request) -> int:
    """A token has a byte or more; eight for the frame of each message."""
    read = sum(len(message.content.encode("utf-8", "replace")) + 8 for message in request.messages)
    return read + (len(json.dumps(request.schema)) if request.schema else 0)  # servers show it to the model
