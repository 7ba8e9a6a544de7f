"""Lists of hashes, read and written."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.overrides.entries import NewOverride, OverrideError
from gateway.overrides.hash_list_export import export
from gateway.overrides.hash_lists import (
    MOST_BYTES,
    MOST_LINE_BYTES,
    MOST_LINES,
    Defaults,
    HashKind,
    HashListError,
    ListFormat,
    parse,
)
from gateway.overrides.matching import OverrideAction
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, in_force, sha

LINES, CSV, HMA = ListFormat
DENIES = Defaults(action=DENY)
A, B = sha(0xA1).hex(), sha(0xB2).hex()


def broken(data: bytes | str, format_: ListFormat, defaults: Defaults = DENIES) -> dict[int, str]:
    return {error.line: error.reason for error in parse(data, format_, defaults).errors}


def hashes(data: bytes | str, format_: ListFormat, defaults: Defaults = DENIES) -> list[str]:
    return [
        f"{'sha256' if entry.sha256 else 'pdq'} {(entry.sha256 or entry.pdq or b'').hex()}"
        for entry in parse(data, format_, defaults).entries
    ]


def test_lines_with_every_way_to_name_the_kind() -> None:
    data = f"# a list\n\nsha256:{A}\n  pdq : {B}  # why\r\nPDQ {A.upper()}\n{B}\n"
    found = hashes(data, LINES, Defaults(action=DENY, kind=HashKind.SHA256))
    assert found == [f"sha256 {A}", f"pdq {B}", f"pdq {A}", f"sha256 {B}"]


def test_each_broken_line_is_reported_and_the_rest_is_read() -> None:
    data = (
        f"\ufeffsha256:{A}\nnonsense\n{A}\n\npdq:{A[:-1]}\npdq:{A} {B}\nmd5:{A}\n".encode()
        + b"\xff\xfe\n"
        + f"sha256:{'0' * MOST_LINE_BYTES}\n'; DROP TABLE overrides; --\npdq:{B}".encode()
    )
    parsed = parse(data, LINES, DENIES)
    assert [entry.sha256 or entry.pdq for entry in parsed.entries] == [sha(0xA1), sha(0xB2)]
    assert [error.line for error in parsed.errors] == [2, 3, 5, 6, 7, 8, 9, 10]
    reasons = broken(data, LINES)
    assert "sha256 or pdq" in reasons[3]
    assert "64 hexadecimal digits" in reasons[5]
    assert "not UTF-8" in reasons[8]
    assert "over 16384 bytes" in reasons[9]


def test_csv_in_any_order() -> None:
    data = (
        "note,Action,pdq,sha256,rule\n"
        f'"a, ""quoted"" note",allow,{B},{A},r\n'
        f",deny,,{B},\n"
        f"only a look,DENY,{A}\n"
        ",,,,\n"
    )
    parsed = parse(data, CSV, Defaults())
    assert parsed.errors == ()
    assert parsed.entries == (
        NewOverride(ALLOW, sha(0xA1), sha(0xB2), "r", 'a, "quoted" note'),
        NewOverride(DENY, sha(0xB2)),
        NewOverride(DENY, pdq=sha(0xA1), note="only a look"),
    )


def test_csv_with_defaults_and_semicolons() -> None:
    data = f"sha256;pdq;note\r\n{A};;\r\n;{B};mine\r\n"
    parsed = parse(data, CSV, Defaults(action=ALLOW, rule="r", note="list"))
    assert parsed.entries == (
        NewOverride(ALLOW, sha(0xA1), note="list"),
        NewOverride(ALLOW, pdq=sha(0xB2), rule="r", note="mine"),
    )


def test_broken_lines_of_csv() -> None:
    data = (
        "sha256,pdq,action,rule,note\n"
        f"{A},,deny,,ok\n"
        f"{A},,perhaps,,\n"
        f"{A},,deny,,a,b\n"
        f'{A},,deny,,"never closed\n'
        f"{A},,,,\n"
        f",{A},allow,,\n"
        ",,deny,,nothing\n"
        f"{B},,deny,,ok\n"
    )
    reasons = broken(data, CSV, Defaults())
    assert sorted(reasons) == [3, 4, 5, 6, 7, 8]
    assert "perhaps" in reasons[3]
    assert "6 cells" in reasons[4]
    assert "not CSV" in reasons[5]
    assert "missing" in reasons[6]
    assert "rule" in reasons[7]
    assert hashes(data, CSV, Defaults()) == [f"sha256 {A}", f"sha256 {B}"]


@pytest.mark.parametrize(
    "header", ["", "\n\n", "md5,note", "note,action", "sha256,sha256", f"{A},deny", "sha256,acton"]
)
def test_csv_needs_a_header(header: str) -> None:
    with pytest.raises(HashListError):
        parse(header, CSV, DENIES)


def test_what_hma_takes_and_gives() -> None:
    data = "\n".join(
        [
            json.dumps({"pdq": A}),
            json.dumps({"id": 12, "signals": {"pdq": B, "vmd5": "0" * 32}}),
            json.dumps({"pdq": B, "sha256": A}),
        ]
    )
    assert parse(data, HMA, DENIES).entries == (
        NewOverride(DENY, pdq=sha(0xA1)),
        NewOverride(DENY, pdq=sha(0xB2)),
        NewOverride(DENY, sha(0xA1), sha(0xB2)),
    )
    as_list = json.dumps([json.loads(line) for line in data.splitlines()], indent=2)
    assert parse(as_list, HMA, DENIES).entries == parse(data, HMA, DENIES).entries


def test_broken_lines_of_hma() -> None:
    bad = ["{", "[1]", "7", '{"vmd5": "0"}', '{"pdq": 7}', '{"pdq": "ab"}', '{"signals": []}']
    data = "\n".join([json.dumps({"pdq": A}), *bad, "[" * 9000, json.dumps({"pdq": B})])
    assert sorted(broken(data, HMA)) == list(range(2, 10))
    assert hashes(data, HMA) == [f"pdq {A}", f"pdq {B}"]
    assert sorted(broken(json.dumps([{"pdq": A}, "x", {"pdq": "?"}]), HMA)) == [2, 3]


@pytest.mark.parametrize(
    ("data", "format_"),
    [
        (b"x" * (MOST_BYTES + 1), LINES),
        (b"\n" * (MOST_LINES + 1), LINES),
        (A.encode("utf-16"), LINES),
        (A.encode("utf-16-le"), LINES),
        (b"[1,", HMA),
        (b"[" * 100_000, HMA),
    ],
)
def test_what_is_no_list(data: bytes, format_: ListFormat) -> None:
    with pytest.raises(HashListError):
        parse(data, format_, DENIES)


@pytest.mark.parametrize("format_", ListFormat)
@given(data=st.binary(max_size=200) | st.text(max_size=200))
def test_anything_is_read_or_refused(format_: ListFormat, data: bytes | str) -> None:
    try:
        parsed = parse(data, format_, DENIES)
    except HashListError:
        return
    assert all(error.line >= 1 and error.reason for error in parsed.errors)


def text(entry: str) -> str:
    try:
        return NewOverride(DENY, sha(1), note=entry).checked().note
    except OverrideError:
        return ""


NOTES = st.text(max_size=40).map(text) | st.sampled_from(
    ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "''", "'", "＝1", 'a "b", c', "a;b", "# x", "<script>"]
)
ENTRIES = st.builds(
    NewOverride,
    action=st.just(DENY),
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    pdq=st.binary(min_size=32, max_size=32),
    rule=st.none(),
    note=NOTES,
) | st.builds(
    NewOverride,
    action=st.just(ALLOW),
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    pdq=st.binary(min_size=32, max_size=32),
    rule=NOTES.filter(bool),
    note=NOTES,
)


@given(st.lists(ENTRIES, max_size=5))
def test_csv_keeps_every_entry(entries: list[NewOverride]) -> None:
    content = export([in_force(entry) for entry in entries], CSV)
    parsed = parse(content, CSV, Defaults())
    assert parsed.errors == ()
    assert list(parsed.entries) == entries


@given(st.lists(ENTRIES, max_size=5))
def test_no_cell_of_csv_is_a_formula(entries: list[NewOverride]) -> None:
    content = export([in_force(entry) for entry in entries], CSV)
    for row in csv.reader(io.StringIO(content)):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


MIXED = [
    in_force(NewOverride(DENY, sha(1), LOOK)),
    in_force(NewOverride(DENY, sha(2))),
    in_force(NewOverride(ALLOW, sha(3), sha(4), "r")),
]


@pytest.mark.parametrize(
    ("format_", "action", "kind", "expected"),
    [
        (
            LINES,
            DENY,
            None,
            [f"sha256 {sha(1).hex()}", f"pdq {LOOK.hex()}", f"sha256 {sha(2).hex()}"],
        ),
        (LINES, DENY, HashKind.SHA256, [sha(1).hex(), sha(2).hex()]),
        (LINES, ALLOW, HashKind.PDQ, [sha(4).hex()]),
        (HMA, DENY, None, [json.dumps({"pdq": LOOK.hex()})]),
        (HMA, ALLOW, None, [json.dumps({"pdq": sha(4).hex()})]),
    ],
)
def test_lists_that_know_no_action_have_those_of_one_action(
    format_: ListFormat, action: OverrideAction, kind: HashKind | None, expected: list[str]
) -> None:
    content = export(MIXED, format_, action=action, kind=kind)
    assert content.splitlines() == expected
    read = parse(content, format_, Defaults(action=action, kind=kind, rule="r"))
    assert (len(read.entries), read.errors) == (len(expected), ())
