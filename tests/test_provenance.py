"""What is written above a calibrated policy is read back, and says when it no longer holds."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from imagesafety.provenance import (
    Material,
    Measured,
    Provenance,
    Rate,
    Spread,
    decisions_digest,
    places,
    provenance_warnings,
    service_warnings,
)
from imagesafety.provenance_file import ProvenanceError, find_provenance, with_provenance
from imagesafety.provenance_report import placeholders

POLICY = """\
# Of our server.

model = "demo"
weights_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[concepts]
a = ["a"]
"two words" = ["b"]
[groups.one]
thresholds = { a = 0.1, "two words" = 0.2 }
critical = { a = 0.3 }
[[adjustments]]
when = { "two words" = 0.25 }
add = { a = -0.02 }
[[rules]]
name = "r"
all = ["one"]
"""
NOTHING_FITS = "what was measured no longer holds: run `imagesafety calibrate` again"


def provenance_of(policy: Policy) -> Provenance:
    return Provenance(
        calibrated=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        imagesafety="0.1.0",
        model=policy.model,
        weights_digest=policy.weights_digest or "",
        backend="pytorch-cpu",
        concepts_digest=policy.concepts_digest,
        decisions_digest=decisions_digest(policy),
        material=Material(5010, 5000, 0, 7, "ab" * 32),
        goal="at most 10 in 10000 false rejects",
        budget=0.001,
        levels={"one": 0.0123},
        false_rejects=Rate(0, 4000, 0.0, 0.00075, 0.95),
        spreads={"a": Spread(0.1, 0.01), "two words": Spread(0.1, 0.02)},
        measured={
            place: Measured(value, 0.01, extrapolated=concept == "a")
            for place, (concept, value) in places(policy).items()
        },
        warnings=('some "thing"',),
    )


@pytest.fixture
def policy() -> Policy:
    return parse_policy(POLICY)


def test_it_is_read_back_and_the_file_stays_as_it_was_below(policy: Policy) -> None:
    provenance = provenance_of(policy)
    text = with_provenance(POLICY, provenance)
    assert find_provenance(text) == provenance
    assert text.endswith("\n\n" + POLICY)
    assert replace(parse_policy(text), digest=policy.digest) == policy
    later = replace(provenance, calibrated=datetime(2027, 1, 1, tzinfo=UTC), false_accepts=None)
    again = with_provenance(text, later)
    assert find_provenance(again) == later
    assert again.endswith("\n\n" + POLICY)
    assert again.count("#: [measured]") == 1


def test_a_value_that_somebody_put_above_it_hides_nothing(policy: Policy) -> None:
    provenance = provenance_of(policy)
    text = 'partial = "accept"\n' + with_provenance(POLICY, provenance)
    assert find_provenance(text) == provenance
    again = with_provenance(text, replace(provenance, goal="another"))
    assert again.count("#: calibrated") == 1
    assert again.startswith("#: calibrated")
    assert replace(parse_policy(again), digest="") == replace(parse_policy(text), digest="")


def test_another_backend_or_number_of_frames_is_told(policy: Policy) -> None:
    provenance = replace(provenance_of(policy), backend="a, b", max_frames=16)
    assert service_warnings(provenance, "b", 16) == []
    assert service_warnings(replace(provenance, max_frames=None), "", 3) == []
    [backend, frames] = service_warnings(provenance, "c", 0)
    assert backend.startswith("it was calibrated with a, b, and inference has c")
    assert frames.endswith("with 16 frames of an animation, and inference looks at all")


def test_a_policy_without_it_has_none_and_broken_ones_are_one_line() -> None:
    assert find_provenance(POLICY) is None
    assert find_provenance("") is None
    # Comments further down are none of ours.
    assert find_provenance(POLICY + "#: calibrated = 1\n") is None
    for broken in ("#: calibrated = 1", "#: [[", "#: levels = 3\n#: calibrated = 2026-01-01"):
        with pytest.raises(ProvenanceError, match="can't be read") as caught:
            find_provenance(f"{broken}\n{POLICY}")
        assert "\n" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(1e-12, 1))
def test_whatever_is_in_it(text: str, share: float) -> None:
    policy = parse_policy(POLICY)
    place = ("groups", text, "thresholds", text)
    provenance = replace(
        provenance_of(policy),
        goal=text,
        levels={text: 0.5},
        measured={place: Measured(0.5, float(f"{share:.6g}"))},
    )
    assert find_provenance(with_provenance(POLICY, provenance)) == provenance


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("# Of our server.", "# Of ours.", None),
        ('all = ["one"]', 'all = ["one"]\nmode = "shadow"', None),
        ('"b"]', '"B"]', "prompts were changed"),
        ("a = 0.1", "a = 0.11", "thresholds, adjustments, rules or `partial` were changed"),
        ("a = 0.3", "a = 0.31", "thresholds, adjustments, rules or `partial` were changed"),
        ("a = -0.02", "a = -0.03", "thresholds, adjustments, rules or `partial` were changed"),
        ('all = ["one"]', 'all = ["one"]\nmode = "off"', "thresholds, adjustments, rules"),
        ("model =", 'partial = "reject"\nmodel =', "thresholds, adjustments, rules or `partial`"),
        ("model =", 'partial = "accept"\nmodel =', None),
        ("[concepts]", "[detail]\ntiles = 3\n[concepts]", "thresholds, adjustments, rules"),
        ('"demo"', '"ViT-B-32/openai"', "for model demo, not ViT-B-32/openai"),
        ("sha256:0", "sha256:1", "other weights of demo"),
        (POLICY.split("\n")[3] + "\n", "", "no longer names the weights"),
    ],
)
def test_it_says_when_it_no_longer_holds(
    policy: Policy, old: str, new: str, warning: str | None
) -> None:
    assert POLICY.count(old) == 1
    warnings = provenance_warnings(parse_policy(POLICY.replace(old, new)), provenance_of(policy))
    if warning is None:
        assert warnings == []
    else:
        assert len(warnings) == 2
        assert warning in warnings[0]
        assert warnings[1] == NOTHING_FITS


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("thresholds = { a = 1.0, b = 1 }", ["r"]),
        ("thresholds = { a = 1.0, b = 0.99 }", []),
        ("at_least = 2\nthresholds = { a = 1.0, b = 0.99 }", ["r"]),
        ("at_least = 3\nthresholds = { a = 1.0, b = 0.9 }\ncritical = { b = 0.95 }", []),
    ],
)
def test_a_rule_that_no_image_can_reach_is_a_placeholder(group: str, expected: list[str]) -> None:
    text = f"""
model = "demo"
concepts = {{ a = ["a"], b = ["b"] }}
[groups.any]
thresholds = {{ a = 0.5 }}
[groups.one]
{group}
[[rules]]
name = "r"
all = ["any", "one"]
"""
    assert placeholders(parse_policy(text)) == expected
