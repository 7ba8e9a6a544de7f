"""Values in TOML files are replaced where they stand, and nothing else is touched."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.toml_edit import literal, with_line_after, with_values

FILE = """\
# red at 0.5, because 0.5 is a half
model = "0.5"  # as it is
other = 'demo'

[concepts]
red = ["red 0.5", "0.5"]

[groups.one]
thresholds = { red = 0.5, "two words" = -1 }   # 0.5
[groups.one.critical]
red = +5e-1
[groups]
two.thresholds."a.b" = 0.5

[[adjustments]]
when = { red = 0.5 }
[[adjustments]]
when = { red = 0.00123456789 }
"""


@pytest.mark.parametrize(
    ("place", "line", "written"),
    [
        (
            ("groups", "one", "thresholds", "red"),
            8,
            'thresholds = { red = 0.25, "two words" = -1 }',
        ),
        (("groups", "one", "thresholds", "two words"), 8, '"two words" = 0.25 }   # 0.5'),
        (("groups", "one", "critical", "red"), 10, "red = 0.25"),
        (("groups", "two", "thresholds", "a.b"), 12, 'two.thresholds."a.b" = 0.25'),
        (("adjustments", 0, "when", "red"), 15, "when = { red = 0.25 }"),
        (("adjustments", 1, "when", "red"), 17, "when = { red = 0.25 }"),
    ],
)
def test_one_number_changes_on_its_line(
    place: tuple[str | int, ...], line: int, written: str
) -> None:
    before, after = FILE.split("\n"), with_values(FILE, {place: 0.25}, 5).split("\n")
    assert [n for n in range(len(before)) if before[n] != after[n]] == [line]
    assert written in after[line]


def test_texts_change_too_and_lines_can_be_added() -> None:
    changed = with_values(FILE, {("model",): 'a "b"', ("other",): "c"}, 5)
    assert tomllib.loads(changed)["model"] == 'a "b"'
    assert 'other = "c"\n' in changed
    added = with_line_after(FILE, ("model",), "weights = 1")
    assert 'model = "0.5"  # as it is\nweights = 1\nother' in added
    assert with_line_after('a = "b"', ("a",), "c = 1") == 'a = "b"\nc = 1'


@pytest.mark.parametrize("place", [("groups", "one"), ("model",), ("no", "such"), ("concepts", 0)])
def test_a_place_without_a_number_is_an_error(place: tuple[str | int, ...]) -> None:
    with pytest.raises(KeyError):
        with_values(FILE, {place: 0.5}, 5)


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.floats(-1, 1)))
def test_literals_are_read_as_they_were_meant(value: str | float) -> None:
    text = f"a = {literal(value, 5)}"
    assert "\n" not in text
    found = tomllib.loads(text)["a"]
    assert found == (value if isinstance(value, str) else round(value, 5))
