"""Overrides as the admin pages export them, read without the gateway."""

from pathlib import Path

import pytest

from gateway.overrides.hash_list_export import export
from gateway.overrides.hash_lists import ListFormat
from gateway.overrides.matching import Override, OverrideAction
from imagesafety.override_list import (
    OverrideEntry,
    OverrideListError,
    load_overrides,
    parse_overrides,
)

A, B = "01" * 32, "02" * 32


def test_what_the_admin_pages_export_is_read_as_it_was_meant() -> None:
    def override(id: str, action: OverrideAction, note: str, **hashes: bytes) -> Override:  # noqa: A002
        known = {"sha256": None, "pdq": None, **hashes}
        rule = "a rule" if action is OverrideAction.ALLOW and known["pdq"] else None
        return Override(id, action, known["sha256"], known["pdq"], rule, note, "an admin", 0)

    one, two = bytes.fromhex(A), bytes.fromhex(B)
    entries = [
        override("1", OverrideAction.ALLOW, '=a, "meme"', sha256=one),
        override("2", OverrideAction.DENY, "", pdq=two),
        override("3", OverrideAction.ALLOW, "both", sha256=two, pdq=one),
    ]
    assert parse_overrides(export(entries, ListFormat.CSV)) == (
        OverrideEntry(False, one, None, "", '=a, "meme"'),
        OverrideEntry(True, None, two),
        OverrideEntry(False, two, one, "a rule", "both"),
    )


def test_spreadsheets_may_have_written_it(tmp_path: Path) -> None:
    file = tmp_path / "overrides.csv"
    file.write_bytes(f"\ufeffAction;SHA256\r\nDENY;{A.upper()}\r\n;\r\n\r\n".encode())
    assert load_overrides(file) == (OverrideEntry(True, bytes.fromhex(A), None),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("sha256\n", "line 1: .*action"),
        ("action\n", "line 1: .*hash"),
        ("sha256,action,colour\n", "line 1: "),
        ("sha256,action,action\n", "line 1: "),
        (f"sha256,action\n{A},perhaps\n", "line 2: the action is perhaps"),
        (f"sha256,action\n{A}\n", "line 2: the action is missing"),
        ("sha256,action\nabc,deny\n", "line 2: a SHA-256 has 64"),
        ("pdq,action\nabc,deny\n", "line 2: a PDQ hash has 64"),
        ("sha256,action\n,deny\n", "line 2: there is neither"),
        (f"pdq,action\n{A},allow\n", "line 2: .*needs the rule"),
        (f'sha256,action\n"{A},deny\n', "line 2: not CSV"),
        (f"sha256,action\n{A},deny,more\n", "line 2: 3 cells"),
        (f"sha256,action\n{A},deny\n{B},deny\n{A},allow\n", "line 4: .*allowed and denied"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_line(text: str, reason: str) -> None:
    with pytest.raises(OverrideListError, match=reason) as caught:
        parse_overrides(text, "o.csv")
    assert str(caught.value).startswith("o.csv")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OverrideListError, match=r"none\.csv: cannot be read"):
        load_overrides(tmp_path / "none.csv")
