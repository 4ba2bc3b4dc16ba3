"""What an LLM wrote about the entities of a text -> verbatim spans of that text.

Reading is tolerant of form and strict about content. These forms are read, each also inside one Markdown fence and
with prose around it that names nothing:

- JSON: a list of `{"text": ..., "type": ...}`, one such object after the other, `{"entities": [...]}`, or an object
  type -> list of words. Trailing commas are forgiven, anything else that is no JSON is not.
- lines `type: words`, with or without a bullet; bullets `words (type)`, also several in one, with a comma, ` | ` or `;`
  between them; a line `type:`, and a bullet for each entity.
  Several names on a line are a JSON list, or have ` | ` or `;` between them, or a bare `|` that the text does not have.
  Where one of the types and a colon stand behind a `|`, `;` or comma, what follows is of that type, unless the text has
  that part just so: then it is a name. What such a line puts behind or around a name is not part of it: `Rome,`, a full
  stop that ends the line (`U.S.` keeps its own), `(Rome)`; in JSON all that is within the quotes is.
- `none`, `no entities`, `n/a`, `null`, `[]`: an honest "there are none". A `type: none` says it of one type.

Anything else is an abstention. What is named is looked for in the text as it stands there; nothing is guessed.

A comma with a space behind it is between two names where a line has neither ` | ` nor `;`, and each part has a place of
its own in the text: `Ann, Bob` are two in "Ann, Bob came", and so are `Portland, Oregon`. It is part of a name beside
` | `, in a JSON list, and between two digits. For lists with commas are far more frequent than names with one: in the
training sentences of CoNLL 2003 such a comma alone is between two entities of one type 617 times, and within one 14
times; in those of BC5CDR 214 and 17 times.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from typing import Literal, NamedTuple

from freeal.tasks.classification import fold
from freeal.tasks.spans import FUNCTION, Span, Word, flat, held, split_words

Cause = Literal["invented", "inside a word", "wrong type", "ambiguous", "overlap"]
"""Why a named entity is dropped: it is not in the text; only as a part of longer words; its type is none of the types;
the same words were named under several types, or may say that there are none; a longer entity, or one named before it,
has its place."""


class Dropped(NamedTuple):
    """`words` and `type` as the LLM wrote them, and why they are no entity."""

    cause: Cause
    words: str
    type: str


@dataclass(frozen=True, slots=True)
class Grounded:
    """The entities of one text: `spans` sorted, flat, at word borders; None is an abstention with its `problem`.

    `named`: the words of every entity the LLM named, kept or `dropped`, in its order.
    """

    spans: tuple[Span, ...] | None
    problem: str | None = None
    named: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def ground(reply: str | None, text: str, types: Sequence[str], words: Sequence[Word] | None = None) -> Grounded:
    """The spans of `text` that `reply` names.

    - Words are matched as they stand; else without case; else besides without differences of Unicode form, quotes,
      dashes and of spaces next to punctuation; else without punctuation at their ends and an article before them; else
      `US` as `U.S.`, and the other way round; else without accents, if all that is found so is written alike. The first
      of these ways that finds any wins. An acronym is never the word that it looks like: `WHO` is not `who`.
    - A match begins and ends at borders of `words` (default: `split_words`); `Ann` is not found in `Anna`.
    - A part of a word with hyphens is meant only if the words stand nowhere else: `Ann` is in `Ann met Ann-Marie` once.
    - Words named once stand for all of their occurrences, and naming them again adds nothing. Words named under
      several types are dropped as ambiguous, unless they occur exactly as often as they were named and the reply is not
      sorted by type (it is a list of objects, or its lines come back to a type that they had left): then the first name
      is that of the first occurrence, and so on.
    - Of overlapping entities the longer is kept, else the one named first.
    - Where entities were named and none could be kept, the answer is an abstention: it never becomes "no entities".

    Args:
        types: the types there are; case, and spaces, hyphens and underscores in them, do not matter in a reply.

    Example:
        >>> ground('[{"text": "obama", "type": "per"}]', "Obama met Ann.", ["PER"]).spans
        (Span(start=0, end=5, type='PER'),)
        >>> ground("PER: Anna", "Obama met Ann.", ["PER"]).problem
        "nothing that was named can be kept: 'Anna' (invented)"
    """
    if reply is None or not reply.strip():
        return Grounded(None, "empty reply")
    known, finder = _Types(types), _Finder(text, split_words(text) if words is None else words)
    answer = _read(reply, known, finder)
    if answer is None:
        return Grounded(None, f"not a list of entities: {reply.strip()[:80]!r}")
    spans, dropped = _place(answer, finder, known)
    named = tuple(each.words for each in (*answer.named, *answer.unclear))
    if named and not spans:
        causes = ", ".join(f"{each.words[:40]!r} ({each.cause})" for each in dropped[:3])
        more = ", ..." if len(dropped) > 3 else ""
        return Grounded(None, f"nothing that was named can be kept: {causes}{more}", named, tuple(dropped))
    return Grounded(spans, None, named, tuple(dropped))


def listed(names: Sequence[str]) -> str:
    """`names` as they stand behind their type in a line: as JSON, where they would be read as others between ` | `.

    Example:
        >>> listed(["Ann", "Bob"]), listed(["Smith; Jones LLP"]), listed(["None"])
        ('Ann | Bob', '["Smith; Jones LLP"]', '["None"]')
    """
    line = BETWEEN.join(names)
    alone = len(names) > 1 or len(_by_commas(line)) == 1
    told = not _is_blank(line) and not _says_none(line) and (line[0], line[-1]) != ("[", "]")
    untyped = not any(":" in part for part in _BEFORE_A_TYPE.split(line)[1:])
    bare = all(_tidied(name, last=True) == name for name in names)
    plain = alone and told and untyped and bare and _SEPARATOR.split(line) == list(names)
    return line if plain else json.dumps(list(names), ensure_ascii=False)


# --- a reply -> the entities it names


class _Named(NamedTuple):
    words: str
    type: str


class _Answer(NamedTuple):
    """What is named; `ordered`: in an order that may be that of the text.

    `unclear`: a "None" of one type where the text has that word with its capital: a name, or the word for nothing.
    """

    named: tuple[_Named, ...]
    ordered: bool = True
    unclear: tuple[_Named, ...] = ()


class _Types:
    """The types by the forms in which a reply may write them."""

    def __init__(self, types: Sequence[str]) -> None:
        loose = [self._loose(type_) for type_ in types]
        self._of = {key: type_ for key, type_ in zip(loose, types, strict=True) if key and loose.count(key) == 1}
        self._of.update({fold(type_): type_ for type_ in types})

    def find(self, written: str) -> str | None:
        """The type that `written` names, None if it is none of them."""
        return self._of.get(fold(written)) or self._of.get(self._loose(written))

    @staticmethod
    def _loose(written: str) -> str:
        return re.sub(r"[\s_-]+", " ", fold(written).strip(_EDGES))


_EDGES = " .,;:!?\"'`*_()[]{}<>"
_FENCED = re.compile(r"(```|~~~)[\w-]*[ \t]*\n(.*?)\1", re.DOTALL)
_RULE = re.compile(r"\s*(?:```[\w-]*|~~~[\w-]*|---+|\*\*\*+)\s*")
_NOTHING = re.compile(
    r"(?:(?:(?:named )?entities|(?:the|this) (?:text|sentence) (?:mentions|contains|names|has)):?\s*)?"
    r"(?:there (?:is|are) )?"
    r"(?:n/a|null|nothing|no (?:names?|person|one)|"
    r"(?:none|no (?:(?:named )?entit(?:y|ies)|names?))(?: (?:was |were )?(?:found|mentioned|present)| occurs?)?"
    r"(?: in (?:the|this) (?:text|sentence))?)"
)
_BULLET = re.compile(r"^(?:[-*•+]|\d+[.)])\s+")
_TYPE_BEHIND = re.compile(r"(.*\S)\s*\(([^()]*)\)[\s.,;*_]*")
_AFTER_A_TYPE = re.compile(r"(?<=\))[*_]*\s*[,;|]\s*")
BETWEEN = " | "
_SEPARATOR = re.compile(r"\s\|\s|(?<!&amp)(?<!&lt)(?<!&gt)(?<!&quot)(?<!&apos)(?<!&#39);")
_COMMA = re.compile(r"(?<!\d)(?<!\d\s),\s+|,\s+(?![\s\d])")
_BEFORE_A_TYPE = re.compile(r"[|;,]")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?')
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_JSON_LINE = re.compile(r"^[ \t]*(?=[\[{])", re.MULTILINE)
_INTRODUCTION = re.compile(r"([^\n:\[{]*):\s*(?=[\[{])")
_AROUND = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "(": ")", "*": "*"}
_BEHIND = ",;!?"
_STOPPED = re.compile(
    r"(?:^|[\s.-])(?:\w|inc|corp|ltd|co|bros|jr|sr|st|dr|mr|mrs|ms|prof|gen|sen|rep|gov|no|vs|etc)$", re.IGNORECASE
)
"""What a full stop belongs to."""
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)


def _read(reply: str, known: _Types, finder: _Finder) -> _Answer | None:
    """The entities that `reply` names; None where it cannot be read."""
    fences = list(_FENCED.finditer(reply))
    body = (fences[0][2] if len(fences) == 1 else reply).strip()
    if len(fences) == 1 and not _names_nothing(_FENCED.sub("\n", reply), known):
        return None
    body = "\n".join(line for line in body.splitlines() if not _RULE.fullmatch(line))
    if _says_none(body):
        return _Answer(())
    start = _json_start(body, known)
    return _read_lines(body, known, finder) if start is None else _read_json(body, start, known, finder)


def _says_none(text: str) -> bool:
    return _NOTHING.fullmatch(fold(text).strip(_EDGES)) is not None


def _is_blank(words: str) -> bool:
    """Nothing but emphasis, or a dash for nothing."""
    return words.strip("*_") in ("", "-", "–", "—")


def _json_start(body: str, known: _Types) -> int | None:
    """Where JSON begins: at a line that opens a list or object, or after an introduction that names no type."""
    head = _INTRODUCTION.match(body)
    if head and known.find(_bare(head[1])) is None:
        return head.end()
    line = _JSON_LINE.search(body)
    return line.end() if line else None


def _read_json(body: str, start: int, known: _Types, finder: _Finder) -> _Answer | None:
    decoder = json.JSONDecoder(object_pairs_hook=_Object, strict=False)  # a line break in a string is a matter of form
    rest = _TRAILING_COMMA.sub(lambda found: found[1] or "", body[start:])
    values: list[object] = []
    try:
        while rest.startswith(("[", "{")):
            value, end = decoder.raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip(" \t\r\n,")
    except (ValueError, RecursionError):  # cut off, or no JSON at all
        return None
    if not _names_nothing(body[:start], known) or not _names_nothing(rest, known):
        return None
    if len(values) > 1:
        values = [each for value in values for each in (value if isinstance(value, list) else [value])]
        return _answer(values, known, finder)
    return _answer(values[0], known, finder)


def _names_nothing(prose: str, known: _Types) -> bool:
    """There is no JSON in `prose`, and no line of it has a type."""
    return not re.search(r"[\[{]", prose) and not any(_typed(line, known) for line in prose.splitlines())


class _Object(tuple[tuple[str, object], ...]):
    """The pairs of a JSON object, of which a key may have several."""

    __slots__ = ()

    def values_of(self, *keys: str) -> list[object]:
        return [value for key, value in self if fold(key) in keys]


def _answer(value: object, known: _Types, finder: _Finder) -> _Answer | None:
    """What one JSON value names."""
    if isinstance(value, _Object):
        inner = value.values_of("entities")
        if len(inner) == 1 and not any(known.find(key) for key, _ in value):
            value = inner[0]
            if value is None or (isinstance(value, str) and _says_none(value)):
                return _Answer(())
    if isinstance(value, _Object):
        entity = _entity(value)
        return _by_type(value, known, finder) if entity is None else _Answer((entity,))
    if not isinstance(value, list):
        return None
    found = [_entity(item) for item in value]
    named = tuple(each for each in found if each is not None)
    return _Answer(named) if len(named) == len(found) else None


def _entity(item: object) -> _Named | None:
    """The one entity that an object with words and a type is; other keys do not matter."""
    if not isinstance(item, _Object):
        return None
    words, types = item.values_of("text", "entity", "words"), item.values_of("type", "label")
    if len(words) != 1 or len(types) != 1 or not _is_text(words[0]) or not _is_text(types[0]):
        return None
    return _Named(str(words[0]), str(types[0]))


def _is_text(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _by_type(found: _Object, known: _Types, finder: _Finder) -> _Answer | None:
    """The entities of an object type -> list of words."""
    named = []
    for type_, value in found:
        listed = _listed(value, finder)
        if listed is None:
            return None
        named += [_Named(words, type_) for words in listed]
    meant = not found or any(known.find(type_) for type_, _ in found)
    return _Answer(tuple(named), ordered=False) if named or meant else None


def _listed(value: object, finder: _Finder) -> list[str] | None:
    """The words of one type; None where they are no list of texts. A string is read as what a line says of a type."""
    if isinstance(value, str):
        return _names(value.strip(), finder) if value.strip() and not _means_none(value, finder) else []
    listed = value if isinstance(value, list) else [value]
    there = [item for item in listed if not (item is None or (isinstance(item, str) and _means_none(item, finder)))]
    return [str(words) for words in there] if all(map(_is_text, there)) else None


def _means_none(words: str, finder: _Finder) -> bool:
    """Whether an item of a list is no name: nothing, or a word for it that the text does not have, capital and all."""
    bare = words.strip(_EDGES)
    return not words.strip() or (_says_none(words) and (bare == bare.lower() or not finder.has(bare)))


def _read_lines(body: str, known: _Types, finder: _Finder) -> _Answer | None:
    """The entities of lines, before which there may be one line of introduction."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":") and _typed(lines[0], known) is None:
        del lines[0]
    named: list[_Named] = []
    unclear: list[_Named] = []
    heading, meant = None, False
    for line in lines:
        if several := _types_behind(line, known):
            meant = True
            named += several
            continue
        whole = _line(line, known, heading)
        if whole is None:
            return None
        for found in _sections(whole, known, finder):
            meant |= known.find(found.type) is not None
            heading = heading if found.words.strip("*_") else found.type
            nothing = found.words.strip(_EDGES)
            if _says_none(found.words) and not (found.words.startswith("[") and finder.has(nothing)):
                unclear += [found] if nothing != nothing.lower() and finder.has(nothing) else []
            elif not _is_blank(found.words):
                named += [_Named(words, found.type) for words in _names(found.words, finder)]
    return _Answer(tuple(named), _comes_back(named, known), tuple(unclear)) if named or meant else None


def _comes_back(named: Sequence[_Named], known: _Types) -> bool:
    """Whether a type is left and named again: lines that are sorted by type say nothing of the order of the text."""
    types = [type_ for each in named if (type_ := known.find(each.type))]
    return len(list(groupby(types))) > len(set(types))


def _line(line: str, known: _Types, heading: str | None) -> _Named | None:
    """The words of one line, and the type in it, or, of a bullet, the `heading`; None if it is in no known form."""
    if typed := _typed(line, known):
        return typed
    if heading is not None and _bare(line) != line:
        return _Named(_bare(line), heading)
    return next(_cuts(line), None)


def _typed(line: str, known: _Types) -> _Named | None:
    """The words and the known type of a line that has one: before a colon, or, of a bullet, in brackets at its end."""
    bare = _bare(line)
    behind = [_Named(*found.groups()) for found in [_TYPE_BEHIND.fullmatch(bare)] if found and bare != line.strip()]
    return next((each for each in [*reversed(list(_cuts(line))), *behind] if known.find(each.type)), None)


def _types_behind(line: str, known: _Types) -> list[_Named]:
    """The entities of a bullet in which several are, each with a known type in brackets; else none."""
    bare = _bare(line)
    if any(known.find(each.type) for each in _cuts(line)):
        return []
    parts = [_TYPE_BEHIND.fullmatch(part) for part in _AFTER_A_TYPE.split(bare) if part]
    named = [_Named(*part.groups()) for part in parts if part and known.find(part[2])]
    return named if bare != line and len(named) == len(parts) > 1 else []


def _sections(line: _Named, known: _Types, finder: _Finder) -> list[_Named]:
    """`line` cut where another of the types begins within it; a part that the text has just so is a name."""
    words = line.words
    shown = _QUOTED.sub(lambda found: found[0] if found[1] else "x" * len(found[0]), words)  # a key, or a name
    marks = [mark.start() for mark in _BEFORE_A_TYPE.finditer(shown)]
    cuts = [
        start
        for start, end in pairwise([*marks, len(words)])
        if any(known.find(each.type) for each in _cuts(shown[start + 1 : end]))
        and not finder.has(words[start + 1 : end].strip())
    ]
    first, *others = [words[start + 1 : end] for start, end in pairwise([-1, *cuts, len(words)])]
    return [_Named(first.strip(), line.type), *filter(None, (_typed(other, known) for other in others))]


def _bare(line: str) -> str:
    """`line` without its bullet."""
    return _BULLET.sub("", line.strip(), count=1)


def _cuts(line: str) -> Iterator[_Named]:
    """The ways to cut `line` in two at a colon: a type may have colons in it, and words, too."""
    line = _bare(line)
    for colon in islice(re.finditer(":", line), 9):  # no type has more
        yield _Named(line[colon.end() :].strip(), line[: colon.start()].strip())


def _names(told: str, finder: _Finder) -> list[str]:
    """The names in what a line says of a type; how commas are read stands above."""
    if told.startswith("["):
        try:
            found = json.loads(told)
        except (ValueError, RecursionError):  # words that begin so
            found = None
        if isinstance(found, list) and all(map(_is_text, found)):
            return [str(words) for words in found]
        if bracketed := _IN_BRACKETS.fullmatch(told):
            told = bracketed[1]
    parts = [words.strip() for words in _SEPARATOR.split(told) if words.strip()]
    parts = [part for words in parts for part in ([words] if finder.has(words) else _by_bars(words))]
    by_commas = _by_commas(told) if len(parts) == 1 else []
    parts = by_commas if finder.has_apart(by_commas) else parts
    return [_bare_name(part, part is parts[-1], finder) for part in parts]


def _by_bars(words: str) -> list[str]:
    return [part.strip() for part in words.split("|") if part.strip()]


def _bare_name(words: str, last: bool, finder: _Finder) -> str:
    """A name without what the line has put behind or around it, if the text has it so as a whole."""
    bare = _tidied(words, last)
    return bare if bare != words and finder.find(bare).places else words


def _tidied(words: str, last: bool) -> str:
    """`words` without marks behind and pairs around them, and, of the last of a line, the full stop that ends it."""
    bare = words.strip()
    while len(bare) > 2:
        shorter = bare.rstrip(_BEHIND).rstrip()
        if last and shorter.endswith(".") and not shorter.endswith("..") and not _STOPPED.search(shorter[:-1]):
            shorter = shorter[:-1]
        end = _AROUND.get(shorter[:1])
        if end is not None and shorter[-1:] == end and end not in shorter[1:-1] and len(shorter) > 2:
            shorter = shorter[1:-1].strip()
        if shorter == bare:
            break
        bare = shorter
    return bare


def _by_commas(told: str) -> list[str]:
    """The parts of `told` between commas, and around an "and" behind the last of them; itself, if it has none."""
    *first, last = _COMMA.split(told)
    return [part for part in (*first, *(re.split(r"(?:^|\s)and\s", last) if first else [last])) if part.strip()]


# --- the entities named -> spans


class _Claim(NamedTuple):
    """The places in a text that an entity asks for, under a known type."""

    named: _Named
    type: str
    places: tuple[Word, ...]

    @property
    def spans(self) -> list[Span]:
        return [Span(start, end, self.type) for start, end in self.places]


def _place(answer: _Answer, finder: _Finder, known: _Types) -> tuple[tuple[Span, ...], list[Dropped]]:
    claims: list[_Claim] = []
    dropped: list[Dropped] = []
    for named in answer.named:
        type_, found = known.find(named.type), finder.find(named.words)
        if type_ is None:
            dropped.append(Dropped("wrong type", *named))
        elif not found.places:
            dropped.append(Dropped("inside a word" if found.inside else "invented", *named))
        else:
            claims.append(_Claim(named, type_, found.places))
    settled, ambiguous = _settle(claims, answer.ordered)
    dropped += [Dropped("ambiguous", *each) for each in answer.unclear]
    spans = flat([span for claim in settled for span in claim.spans])
    taken = set(spans)
    lost = [claim for claim in settled if not taken.intersection(claim.spans)]
    dropped += [Dropped("ambiguous", *claim.named) for claim in ambiguous]
    dropped += [Dropped("overlap", *claim.named) for claim in lost]
    return spans, dropped


def _settle(claims: Sequence[_Claim], ordered: bool) -> tuple[list[_Claim], list[_Claim]]:
    """Whose the places are that are claimed more than once; and the claims that cannot be told apart."""
    by_places: dict[tuple[Word, ...], list[_Claim]] = {}
    for claim in claims:
        by_places.setdefault(claim.places, []).append(claim)
    settled: list[_Claim] = []
    ambiguous: list[_Claim] = []
    for places, group in by_places.items():
        if len({claim.type for claim in group}) == 1:
            settled.append(group[0])
        elif ordered and len(group) == len(places):
            settled += [claim._replace(places=(place,)) for claim, place in zip(group, places, strict=True)]
        else:
            ambiguous += group
    return settled, ambiguous


# --- words -> their places in a text


class _Found(NamedTuple):
    """Places at word borders, in order and without overlaps; `inside`: there are some within words."""

    places: tuple[Word, ...]
    inside: bool


@dataclass(frozen=True)
class _View:
    """A text in another form: character i of `form` came from the characters starts[i]:ends[i] of the text."""

    form: str
    starts: Sequence[int]
    ends: Sequence[int]


class _Finder:
    """Finds words in one text, in the first of several ways that finds them."""

    def __init__(self, text: str, words: Sequence[Word]) -> None:
        self._text = text
        self._starts = {word.start for word in words}
        self._ends = {word.end for word in words}
        self._views: dict[Callable[[str], _View], _View] = {}
        self._found: dict[str, _Found] = {}

    def find(self, words: str) -> _Found:
        """Where `words` are in the text; where they are nowhere, what they are once HTML's ways to write are undone."""
        if words not in self._found:
            found = self._search(words)
            plain = html.unescape(words)
            self._found[words] = self._search(plain) if plain != words and not found.places else found
        return self._found[words]

    def has(self, words: str) -> bool:
        """Whether the text has `words` just as they are."""
        return bool(self._matches(self._view(_as_it_is), words).places)

    def has_apart(self, names: Sequence[str]) -> bool:
        """Whether there are several `names`, each of which has a place of its own in the text."""
        kept = flat([Span(*place, name) for name in dict.fromkeys(names) for place in self.find(name).places])
        return len(names) > 1 and {span.type for span in kept} == set(names)

    def _search(self, words: str) -> _Found:
        inside = False
        for look, trim in (
            (_as_it_is, str.strip),
            (_caseless, str.strip),
            (_plain_caseless, str.strip),
            (_plain, _trimmed),
            (_without_points, str.strip),
            (_without_accents, str.strip),
        ):
            sought = trim(look(words).form)
            if any(unicodedata.category(c)[0] in "LNS" for c in sought):  # punctuation alone is no entity
                found = self._matches(self._view(look), sought)
                inside |= found.inside
                places = tuple(place for place in found.places if not self._mistakes(words, place))
                if places and (look is not _without_accents or len({self._text[slice(*each)] for each in places}) == 1):
                    return _Found(places, inside)
        return _Found((), inside)

    def _mistakes(self, words: str, place: Word) -> bool:
        """Whether `words` are an acronym and at `place` is a mere function word: `US` and `us`."""
        there = re.sub(r"^\W+|\W+$", "", self._text[slice(*place)])
        return words.strip().isupper() and not there.isupper() and there.casefold() in FUNCTION

    def _view(self, look: Callable[[str], _View]) -> _View:
        if look not in self._views:
            self._views[look] = look(self._text)
        return self._views[look]

    def _matches(self, view: _View, sought: str) -> _Found:
        places, inside = [], False
        i = view.form.find(sought)
        while i >= 0:
            j = i + len(sought)
            start, end = view.starts[i], view.ends[j - 1]
            cut = (i > 0 and view.starts[i - 1] == start) or (j < len(view.form) and view.ends[j] == end)
            whole = not cut and start in self._starts and end in self._ends
            if whole:
                places.append(Word(start, end))
            inside |= not whole and not cut
            i = view.form.find(sought, j if whole else i + 1)
        apart = [place for place in places if not held(self._text, place.start - 1) and not held(self._text, place.end)]
        return _Found(tuple(apart or places), inside)


def _as_it_is(text: str) -> _View:
    return _View(text, range(len(text)), range(1, len(text) + 1))


def _caseless(text: str) -> _View:
    return _mapped(text, _small)


def _plain(text: str) -> _View:
    return _tight(_mapped(text, _plain_form))


def _plain_caseless(text: str) -> _View:
    return _tight(_mapped(text, lambda part: _small(_plain_form(_plain_form(part).casefold()))))


def _without_points(text: str) -> _View:
    """Runs of capital letters with points behind them without these, each run whole: `U.S.` is `US`, and no part of
    `U.S.A.` is."""
    parts = list(_INITIALS.finditer(text))
    forms = [part[0].replace(".", "") if len(part[0]) > 1 and part[0].isupper() else part[0] for part in parts]
    starts = [part.start() for part, form in zip(parts, forms, strict=True) for _ in form]
    ends = [part.end() for part, form in zip(parts, forms, strict=True) for _ in form]
    return _View("".join(forms), starts, ends)


_INITIALS = re.compile(r"(?<!\w)(?:[^\W\d_]\.)+[^\W\d_](?:\.|(?!\w))|.", re.DOTALL)
"""A run of letters with points behind them, else any one character."""


def _without_accents(text: str) -> _View:
    return _tight(_mapped(text, lambda part: _ACCENTS.sub("", _plain_form(part))))


_ACCENTS = re.compile("[\u0300-\u036f]+")
"""Marks of Latin, Greek and Cyrillic letters; those of other scripts are vowels, or make another letter."""


def _small(part: str) -> str:
    """Without case; a small i has its dot already, so that `İ` is `i`."""
    return part.casefold().replace("i\u0307", "i")


def _plain_form(part: str) -> str:
    """NFKD (a letter and its marks become the same however they were written), typewriter quotes, nothing unseen."""
    form = unicodedata.normalize("NFKD", part.translate(_TYPEWRITTEN)).translate(_TYPEWRITTEN)
    return "".join(character for character in form if unicodedata.category(character) != "Cf")


_TYPEWRITTEN = {
    ord(character): plain
    for plain, characters in {"'": "‘’‚‛′´`", '"': "“”„‟«»″", "-": "‐‑‒–—―−"}.items()
    for character in characters
}


def _mapped(text: str, form: Callable[[str], str]) -> _View:
    """`text` with each character and its marks in another form."""
    forms, starts, ends = [], [], []
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or not unicodedata.combining(text[end]):
            forms.append(form(text[start:end]))
            starts += [start] * len(forms[-1])
            ends += [end] * len(forms[-1])
            start = end
    return _View("".join(forms), starts, ends)


def _tight(view: _View) -> _View:
    """One space for each run of white space between letters or digits, none next to anything else: `( U.S. )` and
    `(U.S.)` are the same."""
    keep: list[int] = []
    form = re.sub(r"\s", " ", view.form)
    for run in re.finditer(r" +|[^ ]+", form):
        if run[0][0] != " ":
            keep.extend(range(*run.span()))
        elif run.start() and _binds(form[run.start() - 1]) and _binds(form[run.end() : run.end() + 1]):
            keep.append(run.start())
    return _View("".join(form[i] for i in keep), [view.starts[i] for i in keep], [view.ends[i] for i in keep])


def _binds(character: str) -> bool:
    return character != "" and unicodedata.category(character)[0] in "LNM"


def _trimmed(form: str) -> str:
    """Without punctuation at its ends, a possessive 's and an article."""
    return re.sub(r"^(?:the|an?) ", "", form.strip(_EDGES).removesuffix("'s"), flags=re.IGNORECASE)
