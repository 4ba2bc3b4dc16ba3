"""How many calls a run will make, worked out before it makes any."""

from hypothesis import given
from hypothesis import strategies as st

from freeal.guidelines import most_calls
from freeal.parts.forecast import Wanted, calls_within, rewritings

counts = st.integers(0, 200)


@given(st.builds(Wanted, counts, counts, st.integers(0, 3), counts, st.floats(0.1, 9), counts), st.integers(0, 2000))
def test_no_limit_is_passed_and_none_that_is_high_enough_changes_anything(wanted, limit):
    assert calls_within(wanted, limit).total <= limit
    free = calls_within(wanted, None)
    assert calls_within(wanted, free.total + 200) == free


def test_a_row_is_asked_about_with_all_its_questions_or_not_at_all():
    assert calls_within(Wanted(first=100, a_row=6.0), 100).first_round == 96


def test_meanings_are_rewritten_where_as_many_calls_are_left_for_rows():
    wanted = Wanted(first=10, later=300, further=1, rewrites=True)
    most = most_calls(1)
    found = calls_within(wanted, 10 + 2 * most)
    assert (found.guidelines_at_most, found.later_rounds_at_most, rewritings(wanted, found)) == (most, most, 1)
    found = calls_within(wanted, 10 + 2 * most - 1)
    assert (found.guidelines_at_most, found.later_rounds_at_most) == (0, 2 * most - 1)


def test_texts_written_in_need_take_no_calls_from_what_later_rounds_are_said_to_ask_at_most():
    found = calls_within(Wanted(first=25, later=100, further=1, rescue=60), 90)
    assert (found.rescue_at_most, found.later_rounds_at_most) == (60, 65)
