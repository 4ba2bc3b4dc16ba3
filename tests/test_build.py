"""Which settings a run comes to, where that takes more than a look at one of them."""

import numpy as np
import pytest

from freeal import build, understudy
from freeal.config import parse
from freeal.ledger import Ledger
from freeal.types import Annotations

JUDGED = {"kind": "transformer", "judge": "linear"}


def spoken_of(n=200, shape=(2,)):
    """What an LLM said of n rows, and a student that foretells most of it and is less sure than it might be."""
    llm = np.eye(2)[np.random.default_rng(0).integers(0, 2, (n, *shape[:-1]))]
    said = Annotations(llm, llm, np.zeros(n, np.int16), np.full(n, None, object))
    return said, np.where(llm > 0, 0.6, 0.4)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as kept:
        yield kept


@pytest.mark.parametrize(
    ("student", "fusion", "shape", "grows"),
    [
        ({"kind": "linear"}, {}, (2,), True),
        (JUDGED, {}, (2,), True),
        ({**JUDGED, "judge": "cross_fitted"}, {}, (2,), True),
        ({**JUDGED, "judge": "none"}, {}, (2,), False),
        ({"kind": "linear"}, {"fitted": False}, (2,), False),
        ({"kind": "tagger"}, {}, (3, 2), False),
        (JUDGED, {}, (3, 2), False),
    ],
)
def test_the_weight_of_a_student_grows_only_where_it_has_not_seen_the_rows(ledger, student, fusion, shape, grows):
    settings = {"data": {"pool": "x.csv"}, "prompt": "x.md", "llm": {"kind": "local"}}
    config = parse({**settings, "student": student, "fusion": fusion}, "x.yaml")
    llm, weight = build.weights_of(config, ledger, *spoken_of(shape=shape))
    assert llm == 0.5
    assert (weight > 1.0) if grows else (weight == 0.5)
    ledger.remember(understudy.FACT, {"written": 60})
    assert build.weights_of(config, ledger, *spoken_of(shape=shape)) == (0.5, 0.5), "it is another student's word"
