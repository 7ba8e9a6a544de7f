"""Overrides as the admin pages export them become labels."""

from pathlib import Path

import pytest

from gateway.overrides.hash_list_export import export
from gateway.overrides.hash_lists import ListFormat
from gateway.overrides.matching import Override, OverrideAction
from imagesafety.evaluation.overrides import OverridesError, read_overrides

A, B = bytes(range(32)), bytes(32)
HEADER = "sha256,pdq,action,rule,note\n"


def entry(action: OverrideAction, sha256: bytes | None, **other: bytes | str) -> Override:
    return Override(
        id="1",
        action=action,
        sha256=sha256,
        pdq=other.get("pdq"),  # type: ignore[arg-type]
        rule=other.get("rule"),  # type: ignore[arg-type]
        note=str(other.get("note", "")),
        who="me",
        at=0,
    )


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "overrides.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_an_export_of_the_admin_pages_is_read(tmp_path: Path) -> None:
    entries = [
        entry(OverrideAction.DENY, A, note='=1+1, "quoted", ;'),
        entry(OverrideAction.ALLOW, B, pdq=A, rule="-a rule"),
        entry(OverrideAction.DENY, None, pdq=B),
    ]
    path = written(tmp_path, export(entries, ListFormat.CSV))
    assert read_overrides(path) == {A: True, B: False}


def test_what_a_spreadsheet_makes_of_it_is_read_too(tmp_path: Path) -> None:
    content = f"\ufeffAction;SHA256\r\ndeny;{A.hex().upper()}\r\n\r\n;\r\n"
    assert read_overrides(written(tmp_path, content)) == {A: True}
    assert read_overrides(written(tmp_path, HEADER)) == {}


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", None, "is empty"),
        ("a,b\n", 1, "columns sha256 and action"),
        (f"{HEADER}{A.hex()},,maybe,,\n", 2, "the action is maybe, not allow or deny"),
        (f"{HEADER}{A.hex()}\n", 2, "the action is missing"),
        (f"{HEADER}\nabc,,deny,,\n", 3, "64 hexadecimal digits"),
        (f'{HEADER}{A.hex()},,deny,,"x\n', 2, "not CSV"),
        (f"{HEADER}{A.hex()},,deny,,\n{A.hex()},,allow,,\n", 3, "allowed and denied"),
        (b"\xff\xfe", None, "cannot be read"),
    ],
)
def test_what_is_wrong_and_where(
    tmp_path: Path, content: str | bytes, line: int | None, reason: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(OverridesError) as caught:
        read_overrides(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: " if line else f"{path}: ")
    assert reason in message
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OverridesError, match="cannot be read"):
        read_overrides(tmp_path / "none.csv")
