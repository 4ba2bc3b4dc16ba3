"""Rows of now against rows of then."""

from freeal.rows import changes, hashes
from freeal.types import Example, Pool


def pool(**texts):
    return Pool(tuple(Example(uid, text) for uid, text in texts.items()))


def taken(of):
    return dict(zip([example.id for example in of.examples], hashes(of), strict=True))


def test_the_same_rows_in_any_order_are_no_change():
    assert str(changes(taken(pool(a="x", b="y")), pool(b="y", a="x"))) == ""


def test_every_kind_of_change_is_told_by_id():
    found = changes(taken(pool(a="x", b="y", c="z")), pool(b="other", c="z", d="new"))
    assert (found.removed, found.edited, found.added) == (("a",), ("b",), ("d",))
    assert str(found) == "1 removed (a); 1 edited (b); 1 added (d)"


def test_only_the_first_few_ids_are_told():
    found = changes({}, pool(**{f"r{i}": "x" for i in range(9)}))
    assert str(found) == "9 added (r0, r1, r2, r3, r4, …)"


def test_fields_count_as_text_does():
    one, other = (Pool((Example("a", "x", {"title": title}),)) for title in "st")
    assert changes(taken(one), other).edited == ("a",)


def test_a_test_that_is_gone_is_a_change():
    assert changes({"a": "1"}, None).removed == ("a",)
    assert str(changes({}, None)) == ""
