"""Entities by judging candidates: what is asked, what becomes of the answers, and when a row has none."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_annotator import Billed

from freeal.annotator import Annotator
from freeal.candidates import Candidates, prompt_of, turns_of
from freeal.errors import CallsSpent, ConfigError, PromptError
from freeal.events import Note, Progress
from freeal.ledger import Ledger
from freeal.llm import Reply
from freeal.llm.scripted import ScriptedLLM
from freeal.money import Purse
from freeal.prompts import load, parse
from freeal.select.calibration import Calibrator
from freeal.tasks.proposals import question
from freeal.types import Annotations, Demonstration, Example, LoopState, Pool

PROMPTS = Path(__file__).parent.parent / "prompts"
NAMES = """---
task: tokens
labels: {PER: a person, ORG: an organisation, LOC: a place, MISC: another name}
---
## user
Names in: {{ text }}

## assistant
{{ entities }}
"""
PROMPT = parse(Path("names.md"), NAMES)
TYPES = list(PROMPT.labels)
TEXTS = ("Ann met Bob Lee .", "It rained .", "they went to Rome")


def pool_of(*texts):
    return Pool(tuple(Example(f"r{i}", text) for i, text in enumerate(texts)))


def words_of(request):
    return request.messages[-1].content.rpartition("\n")[2].split('"')[1]


def sure(choice, p=0.8):
    """Answers with `choice(words)` at probability p."""

    def answer(request):
        wanted = choice(words_of(request))
        rest = (1 - p) / (len(request.choices) - 1)
        logprobs = tuple(float(np.log(p if each == wanted else rest)) for each in request.choices)
        return Reply(wanted, logprobs)

    return answer


def who(words):
    return {"Rome": "LOC", "Ann": "PER", "Bob Lee": "PER"}.get(words, "none")


@pytest.fixture
def desk(tmp_path):
    """Makes readers that share one ledger and one list of events."""
    events = []

    def make(answer=None, kind="names", calibration="none", llm=None, least=0.0, vectors=None, **more):
        llm = llm or ScriptedLLM(answer or sure(who), probabilities=True)
        annotator = Annotator(PROMPT, llm, ledger, events.append, **more)
        return Candidates(annotator, kind, 2, Calibrator(calibration, "average"), least, vectors=vectors)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield make, events


def annotate(reader, pool, shown=(), work="round 0", **more):
    return reader.annotate(pool, np.arange(len(pool)), [tuple(shown)] * len(pool), work, **more)


def marked(answers, pool):
    task = PROMPT.task
    return [task.write(text, best) for text, best in zip(pool.texts, task.best(answers.proba), strict=True)]


def test_only_candidates_without_a_kept_reply_are_still_to_be_asked(desk):
    make, events = desk
    reader, pool = make(), pool_of(*TEXTS)
    assert reader.unasked(pool, "test") == 3
    assert not events
    annotate(reader, pool_of(TEXTS[0]))
    assert reader.unasked(pool, "test") == 1


def test_each_candidate_is_one_question_and_the_text_stands_before_it(desk):
    make, events = desk
    reader, pool = make(), pool_of(*TEXTS)
    answers = annotate(reader, pool)
    requests = reader.annotator.llm.requests
    assert [words_of(each) for each in requests] == ["Ann", "Bob Lee", "Rome"]
    assert {each.choices for each in requests} == {(*TYPES, "none")}
    shared = [each.messages[-1].content.partition("\n")[0] for each in requests]
    assert shared == ["Text: Ann met Bob Lee ."] * 2 + ["Text: they went to Rome"]
    assert [each.uid for each in requests] == ["r0", "r0", "r2"]
    assert marked(answers, pool) == ["PER: Ann | Bob Lee", "none", "LOC: Rome"]
    assert events[-1] == Progress("round 0", 3, 3, "candidates")


class Listed:
    """In place of a lexicon: `names` alone are worth a question."""

    def __init__(self, *names):
        self.names = names

    def worth(self, words, work):
        return np.array([word in self.names for word in words], bool) if self.names else None

    def __call__(self, proba, words, work):
        return proba


@pytest.mark.parametrize(
    ("kind", "names", "asked"),
    [
        ("phrases", ["Ann", "Rome"], ["Ann", "Rome"]),
        ("phrases", [], ["Ann", "Ann met", "Ann met Bob", "met", "rained", "went", "Rome"]),
        ("names", ["Ann"], ["Ann", "Bob Lee", "Rome"]),
    ],
)
def test_of_phrases_those_are_asked_about_that_are_like_listed_names(desk, kind, names, asked):
    make, events = desk
    reader = replace(make(kind=kind), lexicon=Listed(*names))
    pool = pool_of(*TEXTS)
    answers = annotate(reader, pool)
    assert set(asked) <= {words_of(each) for each in reader.annotator.llm.requests}
    if names:
        assert [words_of(each) for each in reader.annotator.llm.requests] == asked
    assert marked(answers, pool)[1:] == ["none", "LOC: Rome"]
    assert not [each for each in events if isinstance(each, Note) and "not asked about" in each.message]


def test_what_was_marked_is_asked_about_however_unlike_the_names(desk):
    make, _ = desk
    pool, b_per = pool_of("Ann met Bob Lee ."), 1
    later = replace(make(kind="phrases"), lexicon=Listed("met")).after(known(pool, [b_per, 0, b_per, b_per + 1], 1))
    annotate(later, pool, work="round 1")
    assert [words_of(each) for each in later.annotator.llm.requests] == ["Ann", "met", "Bob Lee"]


def test_how_many_candidates_are_left_out_is_told(desk):
    make, events = desk
    annotate(make(), pool_of(" , ".join(f"Ann{i} met" for i in range(30)), "Ann met"))
    assert (
        Note("6 candidates of 1 texts are not asked about and count as none: of each text at most 24 are", "round 0")
        in events
    )


def test_a_row_is_as_sure_as_its_candidates(desk):
    make, _ = desk
    proba = annotate(make(), pool_of("Ann slept")).proba[0]
    np.testing.assert_allclose(proba[0, [0, 1, 3]], [0.05, 0.8, 0.05], atol=1e-6)
    np.testing.assert_allclose(proba[1, 0], 0.9, atol=1e-6)


def test_a_word_for_an_answer_is_trusted_somewhat(desk):
    make, _ = desk
    answers = annotate(make(lambda request: who(words_of(request))), pool_of("Ann slept"))
    np.testing.assert_allclose(answers.proba[0, 0, 1], 0.9, atol=1e-6)


def test_a_row_with_a_candidate_that_got_no_answer_abstains(desk):
    make, events = desk
    deaf = make(lambda request: "Perhaps." if words_of(request) == "Ann" else sure(who)(request))
    answers = annotate(deaf, pool_of(*TEXTS))
    assert answers.problems == ("not a label: 'Perhaps.'", None, None)
    assert np.isnan(answers.proba[:, 0, 0]).tolist() == [True, False, False]
    assert Note("1 of 3 candidates got no label: 1 × not a label", "round 0") in events


def test_rows_for_which_no_call_is_left_stay_without_an_answer(desk):
    make, _ = desk
    bounded = partial(make, llm=Billed(sure(who), probabilities=True), purse=Purse(max_calls=2))
    answers = annotate(bounded(), pool_of(*TEXTS))
    assert answers.problems == (None, None, "no call left: stop.max_calls")
    with pytest.raises(CallsSpent):
        annotate(bounded(), pool_of(*TEXTS), work="test", all_or_none=True)


def test_what_was_asked_before_is_not_asked_again(desk):
    make, _ = desk
    first, second = make(), make()
    before, after = annotate(first, pool_of(*TEXTS)), annotate(second, pool_of(*TEXTS))
    np.testing.assert_array_equal(before.proba, after.proba)
    assert second.annotator.llm.requests == []


def known(pool, tags, asked):
    """A state in which the LLM has marked the same `tags` in each row."""
    n, s = len(pool), PROMPT.task.shape(pool.texts)[0]
    proba = np.tile(np.eye(1 + 2 * len(TYPES))[np.resize([*tags, *[0] * s], s)] * 0.9 + 0.01, (n, 1, 1))
    start = LoopState.start(n, proba.shape[1:])
    said = Annotations(proba, proba, np.zeros(n, np.int16), np.full(n, None, object))
    return replace(start, next_round=asked, annotations=said, posterior=proba, student=proba)


def test_what_was_marked_before_is_a_candidate(desk):
    make, _ = desk
    pool = pool_of("ann met bob")
    reader = make()
    annotate(reader, pool)
    assert reader.annotator.llm.requests == []
    annotate(reader.after(known(pool, [1, 0, 1], 1)), pool, work="round 1")
    assert [words_of(each) for each in reader.annotator.llm.requests] == ["ann", "bob"]


def test_a_taste_for_one_answer_is_taken_out_of_the_pass_as_a_whole(desk):
    make, _ = desk
    pool = pool_of(*[f"{name}{i} slept" for i in range(10) for name in ("Ann", "Rome", "The", "Uno", "Misc")])

    def fond(request):
        """Says PER of everything, of what it is a little oftener."""
        told = {"A": "PER", "R": "LOC", "U": "ORG", "M": "MISC"}.get(words_of(request)[0], "none")
        weights = np.array([(3 if each == told else 1) * (20 if each == "PER" else 1) for each in request.choices])
        return Reply("PER", tuple(np.log(weights / weights.sum()).tolist()))

    raw, freed = annotate(make(fond), pool), annotate(make(fond, calibration="batch"), pool)
    assert {each.partition(":")[0] for each in marked(raw, pool)} == {"PER"}
    kinds = [each.partition(":")[0] for each in marked(freed, pool)[:5]]
    assert kinds == ["PER", "LOC", "none", "ORG", "MISC"]
    few = annotate(make(fond, calibration="batch"), pool_of("Rome0 slept"), work="test, zero-shot")
    assert marked(few, pool_of("Rome0 slept")) == ["LOC: Rome0"], "the taste is that of the pool"


def test_uneven_shares_of_the_types_are_estimated_from_the_words_of_candidates(desk):
    make, _ = desk
    names = ["Rome"] * 60 + ["Ann"] * 20 + ["The"] * 20
    pool = pool_of(*[f"{name}{i} slept" for i, name in enumerate(names)])
    rng = np.random.default_rng(0)
    noise = {f"{name}{i}": rng.gumbel(size=5) for i, name in enumerate(names)}

    def fond(request):
        """Says what it is with some noise, and PER a good deal too often."""
        told = {"A": "PER", "R": "LOC"}.get(words_of(request)[0], "none")
        fit = np.array([1.5 * (each == told) + 1.5 * (each == "PER") for each in request.choices])
        logits = fit + noise[words_of(request)]
        return Reply("PER", tuple((logits - np.log(np.exp(logits).sum())).tolist()))

    def by_letter(words):
        return np.eye(3)[["ART".index(word[0]) for word in words]]

    truth = [{"R": "LOC: ", "A": "PER: ", "T": ""}[name[0]] for name in names]

    def right(calibration):
        said = marked(annotate(make(fond, calibration=calibration, vectors=by_letter), pool), pool)
        return np.mean(
            [each.startswith(true) if true else each == "none" for each, true in zip(said, truth, strict=True)]
        )

    assert right("estimated") > right("batch") + 0.05
    assert right("estimated") > right("none") + 0.05


def test_a_later_pass_is_brought_to_what_is_believed(desk):
    make, _ = desk
    pool = pool_of(*[f"Ann{i} slept" for i in range(200)])
    reader = make(sure(lambda words: "PER", p=0.5), calibration="batch")
    alike = annotate(reader, pool).proba
    assert (alike[:, 0, 1] < 0.3).all(), "all the same tells nothing"
    believed = annotate(reader.after(known(pool, [1, 0], 1)), pool, work="round 1").proba
    assert (believed[:, 0, 1] > 0.5).all()


def test_a_demonstration_teaches_by_an_entity_of_each_type_and_by_one_that_is_none():
    demo = Demonstration("Ann and Bob saw Rome on Monday", "PER: Ann | Bob\nLOC: Rome", row=7, fields={"a": "b"})
    turns = turns_of([demo, Demonstration("it rained", "none")], PROMPT, "names")
    assert [(turn.fields["words"], turn.label) for turn in turns] == [
        ("Ann", "PER"), ("Rome", "LOC"), ("Monday", "none"),
    ]  # fmt: skip
    assert all(turn.row == 7 and turn.fields["a"] == "b" for turn in turns)
    chat = prompt_of(PROMPT).render(question(Example("1", "Cy left"), (0, 1)), turns)
    assert [message.content for message in chat if message.role == "assistant"] == ["PER", "LOC", "none"]


BY_WORDS = NAMES.replace(
    "labels: {PER: a person, ORG: an organisation, LOC: a place, MISC: another name}",
    "labels: {PER: {words: [person]}, ORG: {words: [firm]}, LOC: {words: [place, city]}, MISC: {words: [event]}}\n"
    "none: [none, date]",
)


def test_types_may_go_by_words_and_so_may_what_is_none():
    asked = prompt_of(parse(Path("names.md"), BY_WORDS))
    assert asked.replies == ("person", "firm", "place", "city", "event", "none", "date")
    assert list(asked.labels) == [*TYPES, "none"]
    chat = asked.render(question(Example("1", "Cy left Rome"), (0, 1)), turns_of([ROME], PROMPT, "names"))
    assert "one of these and nothing else: person, firm, place, city, event, none, date." in chat[0].content
    assert [message.content for message in chat if message.role == "assistant"] == ["place", "none"]
    assert chat[-1].content.endswith('In this text, "Cy" is a:')


ROME = Demonstration("on Monday it rained in Rome", "LOC: Rome")


def test_the_probability_of_a_type_is_that_of_its_words_together(desk):
    make, _ = desk
    reader = make(lambda request: Reply("city", tuple(np.log([0.05, 0.05, 0.3, 0.3, 0.1, 0.1, 0.1]))))
    reader = replace(reader, annotator=replace(reader.annotator, prompt=parse(Path("names.md"), BY_WORDS)))
    said = annotate(reader, pool_of("they saw Rome"))
    place = list(reader.prompt.task.classes).index("B-LOC")
    assert said.proba[0, 2, place] == pytest.approx(0.6, abs=0.05)


def test_types_that_go_by_words_are_brought_to_even_shares(desk):
    make, _ = desk
    rng = np.random.default_rng(0)
    answers = {f"Rome{i}": rng.dirichlet([0.2, 0.2, 6, 6, 1, 0.5, 0.5]) for i in range(100)}
    nobody = partial(pytest.fail, "nothing is estimated")
    answer = lambda request: Reply("city", tuple(np.log(answers[request.messages[-1].content.split('"')[1]])))  # noqa: E731
    fond = make(answer, calibration="estimated", vectors=nobody)
    fond = replace(fond, annotator=replace(fond.annotator, prompt=parse(Path("names.md"), BY_WORDS)))
    pool = pool_of(*[f"they saw Rome{i}" for i in range(100)])
    begun = annotate(fond, pool).proba[:, 2, 1::2].mean(axis=0)
    np.testing.assert_allclose(begun, 0.2, atol=0.01)
    assert annotate(fond, Pool(pool.examples[:20])).proba[:, 2, 5].mean() > 0.22, "too few: divided by the mean"


def test_types_that_go_by_words_are_brought_to_even_shares_in_later_passes_too(desk):
    make, _ = desk
    rng = np.random.default_rng(0)
    answers = {f"Rome{i}": rng.dirichlet([0.2, 0.2, 6, 6, 1, 0.5, 0.5]) for i in range(100)}
    answer = lambda request: Reply("city", tuple(np.log(answers[request.messages[-1].content.split('"')[1]])))  # noqa: E731
    fond = make(answer, calibration="estimated")
    fond = replace(fond, annotator=replace(fond.annotator, prompt=parse(Path("names.md"), BY_WORDS)))
    pool = pool_of(*[f"Rome{i} slept" for i in range(100)])
    later = fond.after(known(pool, [5, 0], 1))
    found = annotate(later, pool, work="round 1").proba[:, 0, 1::2].mean(axis=0)
    np.testing.assert_allclose(found, 0.2, atol=0.01)


def test_of_phrases_that_share_words_one_at_most_is_an_entity(desk):
    make, _ = desk
    rng = np.random.default_rng(1)
    answer = lambda request: Reply("city", tuple(np.log(rng.dirichlet(np.ones(7)))))  # noqa: E731
    fond = make(answer, kind="phrases", calibration="estimated")
    fond = replace(fond, annotator=replace(fond.annotator, prompt=parse(Path("names.md"), BY_WORDS)))
    annotate(fond, pool_of(*[f"acute liver failure {i} days" for i in range(60)]))
    bias = np.array(fond.ledger.recall("candidates")["bias"])
    assert bias[-1] - bias[:-1].max() > 1.0, "places are a sixth of the candidates"


@pytest.mark.parametrize(
    ("was", "wrong", "told"),
    [
        ("none: [none, date]", "none: date", "names.md:4: 'none' must list words for what is no entity"),
        ("none: [none, date]", "none: []", "names.md:4: 'none' must list words for what is no entity"),
        ("none: [none, date]", "none: [7]", "names.md:4: label 7 is no text but int to YAML"),
        (
            "none: [none, date]",
            "none: [none, City]",
            "names.md:4: 'City' is a word of a type, too; leave it out in one",
        ),
        ("none: [none, date]", "none: [date, Date]", "labels 'date' and 'Date' read the same in a reply"),
        ("PER: {words: [person]}", "PER: a person", "names.md:3: type 'PER' has no words, and others, or 'none', have"),
        ("[event]", "[None]", "names.md:3: the word 'None' is for what is no entity; leave it out"),
        ("MISC:", "None:", "names.md:3: type 'None' is called as what is no entity; rename it"),
        ("## user", "## system\n{{ words }}\n## user", "names.md:7: unknown variable 'words' in '## system'"),
        ("none: [none, date]", "nonne: [city]", "unknown key 'nonne' in the front matter; did you mean 'none'?"),
        ("task: tokens\n", "", "names.md:3: 'none' has words for what is no entity; it is for task: tokens"),
    ],
)
def test_words_for_none_that_cannot_be_used_are_told_with_their_line(was, wrong, told):
    with pytest.raises(PromptError) as caught:
        parse(Path("names.md"), BY_WORDS.replace(was, wrong))
    assert told in str(caught.value)


def test_the_words_of_the_prompts_that_come_with_freeal_tell_all_types_apart():
    for name in ("conll03", "bc5cdr-chem", "bc5cdr-disease"):
        prompt = load(PROMPTS / f"{name}.md")
        asked = prompt_of(prompt)
        assert list(asked.labels) == [*prompt.labels, "none"]
        assert len(asked.replies) > len(asked.labels)


def test_new_meanings_are_told(desk):
    make, _ = desk
    reader = make().told({label: f"new {label}" for label in TYPES})
    annotate(reader, pool_of("Ann slept"))
    assert "- PER: new PER\n" in reader.annotator.llm.requests[0].messages[0].content


def test_answers_that_are_alike_for_all_candidates_are_told(desk):
    make, events = desk
    pool = pool_of(*[f"{name}{i} slept" for i in range(10) for name in ("Ann", "Rome", "The")])
    (alarm,) = annotate(make(sure(lambda words: "PER"), least=0.08), pool).alarms
    assert alarm.startswith("the LLM hardly tells the candidates apart (0.0% of what it might tell")
    assert Note(alarm, "round 0") in events
    pool = pool_of(*[f"{name} slept on day {i}" for i in range(10) for name in ("Ann", "Rome", "Day")])
    assert annotate(make(least=0.08), pool).alarms == ()


def test_a_pool_in_which_next_to_no_text_has_a_candidate_is_told(desk):
    make, events = desk
    pool = pool_of(*[f"it rained on day {i}" for i in range(30)])
    answers = annotate(make(), pool)
    (alarm,) = answers.alarms
    assert alarm.startswith("30 of 30 texts have no candidate and count as without entities: ")
    assert "try reading: phrases" in alarm
    assert Note(alarm, "round 0") in events
    assert marked(answers, pool) == ["none"] * 30


def test_an_llm_without_probabilities_is_refused(desk):
    make, _ = desk
    with pytest.raises(ConfigError, match="reading: names needs an LLM that gives the probability of each label"):
        make(llm=ScriptedLLM(sure(who), probabilities=False)).prepare()
    make().prepare()
