"""What calls cost is reserved before, and never more than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.errors import BudgetError
from freeal.llm import Crowded, Message, Reply, Request
from freeal.money import Account, Price, Purse, known, price_of

DEAR = Price(1e6, 1e6)  # a dollar a token


def ask(text="x" * 32, max_tokens=10):
    return Request((Message("user", text),), max_tokens=max_tokens)


def test_every_listed_price_can_be_read_and_replies_cost_more_than_prompts():
    assert known()
    assert all(0 < price.tokens_in <= price.tokens_out for price in known().values())


@pytest.mark.parametrize(
    ("model", "listed"), [("gpt-4o-2024-08-06", "gpt-4o"), ("openai/gpt-4.1-mini", "gpt-4.1-mini")]
)
def test_a_dated_edition_costs_what_the_model_does(model, listed):
    assert price_of(model) == known()[listed]


@pytest.mark.parametrize("model", ["qwen", "gpt-4", "gpt-4o-mini-search", ""])
def test_a_model_that_is_not_listed_has_no_price(model):
    assert price_of(model) is None


def test_a_call_that_may_cost_more_than_is_left_is_not_made():
    purse = Purse(DEAR, budget=54.0)  # forty bytes and a frame in, ten out
    held = purse.reserve(ask())
    with pytest.raises(Crowded):
        purse.reserve(ask())
    purse.settle(held, Reply("yes", tokens_in=8, tokens_out=1))
    with pytest.raises(BudgetError, match=r"9\.0000 of 54\.0000 are spent"):
        purse.reserve(ask())


def test_a_call_that_came_to_nothing_costs_nothing():
    purse = Purse(DEAR, budget=60.0)
    assert purse.settle(purse.reserve(ask()), None) == 0
    assert (purse.account.spent, purse.account.reserved) == (0, 0)


def test_a_call_that_came_to_nothing_is_no_call():
    purse = Purse(None, max_calls=1)
    purse.settle(purse.reserve(ask()), None)
    purse.reserve(ask())


def test_a_call_that_may_have_been_billed_counts_at_its_worst():
    purse = Purse(DEAR, budget=60.0)
    held = purse.reserve(ask())
    purse.lose(held)
    assert (purse.account.spent, purse.account.reserved, purse.account.calls) == (held, 0, 1)
    with pytest.raises(BudgetError, match="are spent"):
        purse.reserve(ask())


def test_calls_are_counted_whatever_they_cost():
    purse = Purse(None, max_calls=2)
    purse.reserve(ask())
    purse.reserve(ask())
    with pytest.raises(BudgetError, match="2 calls"):
        purse.reserve(ask())


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 10)), max_size=60), st.floats(60, 2000))
def test_what_is_spent_never_exceeds_the_budget(replies, budget):
    purse = Purse(DEAR, budget=budget)
    for tokens_in, tokens_out in replies:  # no reply has more tokens than its prompt bytes, or than it may
        try:
            held = purse.reserve(ask())
        except BudgetError:
            break
        purse.settle(held, Reply("x", tokens_in=min(tokens_in, 32), tokens_out=tokens_out))
        assert purse.account.spent <= budget


def test_after_some_replies_prompts_are_reckoned_by_those_seen():
    purse = Purse(DEAR)
    before = purse.worst(ask())
    for _ in range(25):
        purse.settle(purse.reserve(ask()), Reply("x", tokens_in=8, tokens_out=1), ask())
    assert purse.worst(ask()) == pytest.approx(8 * 1.25 + 10)
    assert purse.worst(ask()) < before


def test_the_answer_of_an_earlier_process_is_put_aside_until_it_comes():
    purse = Purse(DEAR, budget=100.0, max_calls=2)
    worst = purse.worst(ask())
    purse.await_answer(worst)
    assert (purse.account.calls, purse.account.reserved) == (1, worst)
    purse.settle(worst, Reply("x", tokens_in=8, tokens_out=1), ask())
    assert (purse.account.calls, purse.account.reserved) == (1, 0.0)
    assert purse.account.spent == DEAR.of(8, 1)


def test_purses_of_different_prices_spend_from_one_account():
    account = Account()
    cheap, dear = Purse(Price(0.0, 0.0), 54.0, account=account), Purse(DEAR, 54.0, account=account)
    held = dear.reserve(ask())
    assert cheap.reserve(ask()) == 0.0
    dear.settle(held, Reply("yes", tokens_in=8, tokens_out=1))
    assert (account.calls, account.spent) == (2, DEAR.of(8, 1))
    assert cheap.account is dear.account
