"""Which candidate is taken."""

import math

import pytest

from inference.backends.choice import Trial, choose, finalists, refusal, table
from inference.backends.tower import Precision

EXACT = Trial("exact", {1: 10.0, 4: 20.0}, 1.0)


def faster(by: float, name: str = "other", refused: str = "") -> Trial:
    return Trial(name, {1: 1.0, 16: 20.0 * by}, 0.9995, refused)


def test_the_fastest_at_its_best_batch_is_chosen() -> None:
    trials = [EXACT, faster(1.5), faster(2.0, "third")]
    assert choose(trials).name == "third"


def test_a_small_difference_goes_to_the_more_exact() -> None:
    assert choose([EXACT, faster(1.14)]) is EXACT
    assert choose([EXACT, faster(1.16)]).name == "other"
    # Not to one that is within a tie of another that is within a tie of the fastest.
    assert choose([EXACT, faster(1.14, "b"), faster(1.25, "c")]).name == "b"


def test_what_is_refused_is_never_chosen() -> None:
    assert choose([EXACT, faster(9.0, refused="cosine under 0.99")]) is EXACT
    with pytest.raises(ValueError, match="no candidate"):
        choose([faster(9.0, refused="fails")])


@pytest.mark.parametrize(
    ("precision", "cosine", "changed", "passes"),
    [
        ("float32", 0.9991, 0, True),
        ("bfloat16", 0.9991, 0, True),
        ("bfloat16", 0.9989, 0, False),
        ("float16", 0.9989, 0, False),
        ("int8", 0.9901, 0, True),
        ("int8", 0.9899, 0, False),
        ("int8", 1.0, 1, False),
        ("float32", math.nan, 0, False),
    ],
)
def test_the_check(precision: Precision, cosine: float, changed: int, passes: bool) -> None:
    assert (refusal(precision, cosine, changed) == "") is passes


def test_only_who_may_win_is_measured_again() -> None:
    trials = [EXACT, *(faster(by, f"{by}") for by in (4.0, 3.9, 3.0, 2.6, 2.4))]
    assert [trial.name for trial in finalists(trials)] == ["4.0", "3.9", "3.0"]
    assert finalists([EXACT, faster(9.0, refused="fails")]) == [EXACT]
    assert finalists([]) == []


def test_the_table_says_why() -> None:
    refused = Trial("wrong", {}, 0.5, "cosine under 0.99")
    trials = [EXACT, faster(1.1), refused, Trial("late", {}, None, "not tried: no time left")]
    head, exact, other, wrong, late = table(trials, EXACT)
    assert head.split()[-4:] == ["1", "4", "16", "cosine"]
    assert exact.endswith("chosen")
    assert other.endswith("faster by less than 15 %")
    assert wrong.endswith("0.50000  cosine under 0.99")
    assert late.endswith("not tried: no time left")
