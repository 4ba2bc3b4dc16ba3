"""Words, spans and tags: laws on random sentences, and what is decided at word borders."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.errors import PromptError
from freeal.tasks.spans import (
    Span,
    chunks,
    flat,
    join_tokens,
    read_tag,
    split_words,
    tag_vocabulary,
    to_spans,
    to_tags,
    widened,
)

TYPES = ("PER", "LOC", "a-b")
TOKENS = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1).filter(lambda token: token.strip())


@st.composite
def sentences(draw):
    """Tokens with valid BIO2 tags."""
    tokens = draw(st.lists(TOKENS, min_size=0, max_size=12))
    tags: list[str] = []
    for _ in tokens:
        before = tags[-1][2:] if tags and tags[-1] != "O" else None
        choices = ["O", *(f"B-{t}" for t in TYPES), *([f"I-{before}"] * 3 if before else [])]
        tags.append(draw(st.sampled_from(choices)))
    return tokens, tags


def texts_of(text):
    return [text[start:end] for start, end in split_words(text)]


# --- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Obama's UK-based aide.", ["Obama", "'s", "UK", "-", "based", "aide", "."]),
        ("O’Brien isn't here", ["O’Brien", "isn't", "here"]),
        ("Obama’s", ["Obama", "’s"]),
        ("rock 'n' roll", ["rock", "'", "n", "'", "roll"]),
        ("the 'S'", ["the", "'", "S", "'"]),
        ("-dash- a_b _", ["-", "dash", "-", "a_b", "_"]),
        ("3.5 mg/l, 1996-08-22", ["3", ".", "5", "mg", "/", "l", ",", "1996", "-", "08", "-", "22"]),
        ("U.S.", ["U", ".", "S", "."]),
        ("cafe\u0301 cafe\u0301-bar", ["cafe\u0301", "cafe\u0301", "-", "bar"]),
        ("❤️!👍🏽👨\u200d👩\u200d👧", ["❤️", "!", "👍🏽", "👨\u200d👩\u200d👧"]),
        ("a\u00a0b\u200bc\ufeff\n\td", ["a", "b", "c", "d"]),
        ("co\u00adop हिन्दी", ["co\u00adop", "हिन्दी"]),
        ("東京で Tokyo", ["東", "京", "で", "Tokyo"]),
        ("ＡＢＣ", ["ＡＢＣ"]),
        ("", []),
        (" \n", []),
    ],
)
def test_words_are_found_without_a_tokenizer(text, words):
    assert texts_of(text) == words


@given(st.text())
def test_words_are_in_order_and_leave_out_nothing_that_can_be_seen(text):
    words = split_words(text)
    assert all(a.start < a.end <= b.start < b.end for a, b in pairwise(words))
    covered = {i for start, end in words for i in range(start, end)}
    assert not [c for i, c in enumerate(text) if i not in covered and (c.isalnum() or c in "!?.,-'\"€")]
    assert not any(text[start:end].isspace() for start, end in words)


def test_words_of_a_long_text_take_no_longer_than_their_length():
    text = "a-" * 50_000 + "'s" * 50_000 + "\u200d" * 50_000
    assert len(split_words(text)) < len(text)


@given(st.lists(TOKENS))
def test_tokens_are_joined_by_single_spaces_and_found_again(tokens):
    text, words = join_tokens(tokens)
    assert [text[start:end] for start, end in words] == tokens
    assert text == " ".join(tokens)


@pytest.mark.parametrize("token", ["", " a", "a\n"])
def test_a_token_without_borders_is_refused(token):
    with pytest.raises(ValueError, match=r"token 2 .* is empty or has white space at an end"):
        join_tokens(["x", token])


# --- tags and spans


@given(sentences())
def test_tags_to_spans_to_tags_is_the_identity_on_bio2(sentence):
    tokens, tags = sentence
    text, words = join_tokens(tokens)
    spans = to_spans(tags, words)
    assert to_tags(spans, words) == tags
    assert to_spans(tags, words) == spans
    assert all(span.of(text) == text[span.start : span.end] != "" for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


def in_dialect(spans, n, single, begin, inner, end):
    tags = ["O"] * n
    for span in spans:
        length = span.end - span.start
        prefixes = [single] if length == 1 else [begin, *[inner] * (length - 2), end]
        tags[span.start : span.end] = [f"{prefix}-{span.type}" for prefix in prefixes]
    return tags


@pytest.mark.parametrize("dialect", ["BBII", "SBIE", "UBIL", "SBME"], ids=["BIO2", "IOBES", "BILOU", "BMES"])
@given(sentence=sentences())
def test_every_dialect_tells_the_same(dialect, sentence):
    spans = chunks(sentence[1])
    assert chunks(in_dialect(spans, len(sentence[1]), *dialect)) == spans


@given(sentences())
def test_iob1_tells_the_same(sentence):
    tags = list(sentence[1])
    for i, tag in enumerate(sentence[1]):
        if tag[0] == "B" and (i == 0 or sentence[1][i - 1][2:] != tag[2:]):
            tags[i] = "I" + tag[1:]
    assert chunks(tags) == chunks(sentence[1])


@pytest.mark.parametrize("tag", ["", "PER", "B", "B-", "X-PER", "o", "BI-PER", "I_PER"])
def test_what_is_no_tag_is_refused(tag):
    with pytest.raises(ValueError, match="is no tag; expected O, or B- or I- and a type"):
        read_tag(tag)


def test_each_word_needs_a_tag():
    with pytest.raises(ValueError, match=r"2 tag\(s\) for 1 word\(s\)"):
        to_spans(["O", "O"], split_words("x"))


def test_the_vocabulary_is_in_the_order_of_the_types():
    assert tag_vocabulary(["PER", "LOC"]) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert tag_vocabulary(["Chemical"]) == ("O", "B-Chemical", "I-Chemical")


@pytest.mark.parametrize("types", [[], ["PER", "per"], [""], [1]])
def test_types_that_cannot_be_told_apart_are_refused(types):
    with pytest.raises(PromptError):
        tag_vocabulary(types)


# --- word borders and overlaps


@pytest.mark.parametrize(
    ("span", "words"), [((1, 3), "alpha"), ((3, 8), "alpha beta"), ((4, 7), "alpha beta"), ((5, 8), "beta")]
)
def test_a_span_is_widened_to_whole_words(span, words):
    text = "alpha beta gamma"
    assert [s.of(text) for s in widened([Span(*span, "X")], split_words(text))] == [words]


def test_of_two_spans_that_come_to_share_a_word_the_longer_is_kept():
    text = "Franco_German ties"
    assert to_tags([Span(0, 6, "A"), Span(7, 18, "B")], split_words(text)) == ["B-B", "I-B"]


@pytest.mark.parametrize("span", [(1, 2), (9, 12)])
def test_a_span_without_a_word_is_refused(span):
    with pytest.raises(ValueError, match="touches no word"):
        to_tags([Span(*span, "X")], split_words("a b"))


@pytest.mark.parametrize(("start", "end"), [(2, 2), (3, 1), (-1, 2)])
def test_an_empty_span_cannot_be_made(start, end):
    with pytest.raises(ValueError, match="is empty or begins before its text"):
        Span(start, end, "X")


SPANS = st.lists(
    st.builds(lambda a, n, t: Span(a, a + n, t), st.integers(0, 30), st.integers(1, 9), st.sampled_from(TYPES))
)


@given(SPANS)
def test_flat_keeps_some_spans_that_do_not_overlap_and_drops_none_without_need(spans):
    kept = flat(spans)
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(spans)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    for lost in set(spans) - set(kept):
        rivals = [k for k in kept if k.start < lost.end and lost.start < k.end]
        assert any(rival.end - rival.start >= lost.end - lost.start for rival in rivals)


def test_flat_prefers_the_longer_and_then_the_first_named():
    short, long, other = Span(0, 3, "A"), Span(2, 9, "B"), Span(2, 9, "A")
    assert flat([short, long]) == (long,)
    assert flat([other, long]) == (other,)
    assert flat([long, other]) == (long,)


@given(st.text(max_size=40), SPANS)
def test_tags_of_any_spans_are_bio2(text, spans):
    words = split_words(text)
    touching = [s for s in spans if any(w.start < s.end and s.start < w.end for w in words)]
    tags = to_tags(touching, words)
    assert to_tags(to_spans(tags, words), words) == tags
    assert to_spans(tags, words) == widened(touching, words)


# --- the benchmark sets, where they are at hand


@pytest.mark.real
@pytest.mark.parametrize("name", ["conll03", "bc5cdr-chem", "bc5cdr-disease"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_benchmark_sets_are_bio2_through_and_through(shared, name, split):
    types = json.loads((shared / "data" / name / "labels.json").read_text(encoding="utf-8"))
    with (shared / "data" / name / f"{split}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            words = join_tokens(row["tokens"]).words
            assert to_tags(to_spans(row["tags"], words), words) == row["tags"]
            assert set(row["tags"]) <= set(tag_vocabulary(types))
