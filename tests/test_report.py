"""What people and machines are told of a run."""

import doctest

import pytest

from freeal import report


def score(accuracy, coverage=1.0):
    known = accuracy is not None
    return {
        "accuracy": accuracy, "macro_f1": 0.8 if known else None, "calibration_error": 0.05 if known else None,
        "coverage": coverage,
    }  # fmt: skip


def round_(number, zero_shot, final):
    names = {"zero_shot": score(zero_shot), "llm": score(zero_shot), "student": score(final), "final": score(final)}
    return {
        "round": number, "asked": 1000 >> number, "agreement": 0.9, "clean": 0.75, "changed": 0.1, "seconds": 65.0,
        "usage": {"calls": 1000 >> number, "reused": 0, "tokens_in": 12345, "tokens_out": 1000, "seconds": 60.0},
        "pool": names, "test": {},
    }  # fmt: skip


def summary(zero_shot=0.78, final=0.841):
    rounds = [round_(number, zero_shot, final) for number in range(2)]
    return {
        "schema_version": 1, "run": "mr-local", "command": "freeal run mr.yaml", "preset": "default", "seed": 0,
        "llm": "tiny", "student": "small", "warnings": [], "stopped": "3 rounds are done", "rounds": rounds,
        "data": {
            "pool": "pool.csv", "rows": 1000, "labels": ["a", "b"], "read": 1003, "empty": 3, "duplicates": 0,
            "leaked": 2, "cut": 0, "test": None, "test_rows": 0,
        },
        "result": {"round": 1, "why": None, "signs": []},
        "pool": rounds[-1]["pool"], "test": rounds[-1]["test"], "sources": {"both": 1000}, "seconds": 130.0,
        "usage": {"calls": 1500, "reused": 20, "tokens_in": 24690, "tokens_out": 2000, "seconds": 120.0,
                  "cost": 0.0},
    }  # fmt: skip


def without_gold():
    return summary(None, None)


def test_the_headline_tells_the_gain_over_zero_shot():
    assert report.headline(summary()) == "pool: zero-shot 0.780 → final 0.841 (+6.1 points)"


def test_the_headline_says_which_rows_the_first_answers_were_scored_on():
    found = summary()
    found["rounds"][0] |= {"asked": 250, "zero_shot_of": 250}
    assert "zero-shot 0.780 (of the 25% that were asked so) →" in report.headline(found)
    found["rounds"][0]["zero_shot_of"] = 1000
    found["pool"]["zero_shot"]["coverage"] = 0.25
    assert "zero-shot 0.780 (75% have no answer, and count as wrong where gold is known) →" in report.headline(found)


@pytest.mark.parametrize(
    ("first", "final", "estimated", "told"),
    [(0.12, 0.47, True, True), (0.47, 0.12, True, True), (0.12, 0.2, True, False), (0.12, 0.47, False, False)],
)
def test_shares_far_from_what_the_llm_first_said_are_told(first, final, estimated, told):
    found = summary() | {
        "shares": {
            "estimated": estimated,
            "by_label": {"a": {"first": 1 - first, "final": 1 - final}, "b": {"first": first, "final": final}},
        },
    }
    lines = report.moved(found)
    assert len(lines) == told
    assert all(line in report.markdown(found) for line in lines)
    if told:
        assert f"first gave 'a' to {1 - first:.0%} of the rows" in lines[0]
        assert f"have it in {1 - final:.0%}" in lines[0]


def test_of_a_run_that_kept_no_shares_nothing_is_told_of_them():
    assert report.moved(summary()) == []
    assert (
        report.moved(summary() | {"shares": {"estimated": True, "by_label": {"a": {"first": None, "final": 1.0}}}})
        == []
    )


def test_a_loss_is_told_as_well():
    assert report.headline(summary(0.9, 0.85)).endswith("(-5.0 points)")


def test_pool_and_test_are_told_one_after_the_other():
    found = summary()
    found["test"] = {"zero_shot": score(0.7), "final": score(0.75)}
    assert report.headline(found).split("; ")[1] == "test: zero-shot 0.700 → final 0.750 (+5.0 points)"


def test_without_zero_shot_the_result_stands_alone():
    found = summary()
    del found["pool"]["zero_shot"]
    assert report.headline(found) == "pool: final 0.841"


def test_without_gold_agreement_and_belief_are_the_headline():
    assert report.headline(without_gold()) == "LLM and student agree on 90.0% of the rows, 75.0% are believed clean"


def test_without_gold_and_student_belief_alone_is_the_headline():
    found = without_gold()
    found["rounds"][-1]["agreement"] = None
    assert report.headline(found) == "75.0% are believed clean"


def test_the_rounds_are_a_table_with_a_row_each():
    head, line, *rows = report.rounds_table(summary())
    assert head.startswith("| round | asked | calls | tokens in | agree | clean | changed |")
    assert head.count("|") == line.count("|") == rows[0].count("|") == rows[1].count("|")
    assert rows[1].startswith("| 1 | 500 | 500 | 12,345 | 90.0% | 75.0% | 10.0% |")
    assert "final labels, pool" in head
    assert "zero-shot" not in head


def test_what_was_measured_of_a_later_round_alone_has_a_column_too():
    found = summary()
    found["rounds"][0]["pool"] = {"final": score(0.8)}
    head, _, *rows = report.rounds_table(found)
    assert "student, pool" in head
    assert [row.count("|") for row in rows] == [head.count("|")] * 2


def test_without_gold_there_are_no_columns_for_it():
    assert "pool" not in report.rounds_table(without_gold())[0]


def test_scores_are_a_table_with_zero_shot_first():
    rows = report.scores_table(summary(), "pool")
    assert rows[2] == "| zero-shot, raw | 0.780 | 0.800 | 0.050 | 100.0% |"
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["zero-shot, raw", "LLM", "student", "final labels"]


def test_the_page_says_what_was_read_what_it_cost_and_how_to_do_it_again():
    page = report.markdown(summary())
    assert "Pool `pool.csv`: 1,000 texts (3 empty texts skipped; 2 texts of the pool are also in the test)." in page
    assert "1,500 calls (20 more replies reused), 24,690 tokens in, 2,000 out, 2 min 0 s of the LLM" in page
    assert "Stopped: 3 rounds are done." in page
    assert page.endswith("    freeal run mr.yaml\n")


def test_the_page_says_whether_gold_was_read():
    assert "nothing was selected by them" in report.markdown(summary())
    assert "No gold labels were given" in report.markdown(without_gold())
    assert "Right on the pool" not in report.markdown(without_gold())


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (3599.7, "1 h 0 min"), (7300, "2 h 1 min")]
)
def test_the_clock_rounds_before_it_chooses_units(seconds, told):
    assert report.clock(seconds) == told


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(report).failed == 0
