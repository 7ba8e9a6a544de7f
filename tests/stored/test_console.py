"""What a person sees of a scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagesafety.service_address import ServiceAddress
from imagesafety.stored.console import Console
from imagesafety.stored.place import Unlisted
from imagesafety.stored.settings import ScanSettings
from imagesafety.stored.tally import Tally


def console(prefix: str = "", since: float | None = None) -> Console:
    nowhere = ServiceAddress("nowhere")
    settings = ScanSettings(
        Path("policy"), nowhere, Path("state"), prefix=prefix, since_seconds=since
    )
    return Console("memory", settings, None)


@pytest.mark.parametrize(
    ("prefix", "since", "files", "warning"),
    [
        ("a\nb", None, 0, "imagesafety: no file's name begins with a\\nb\n"),
        ("", None, 0, "imagesafety: there are no files\n"),
        ("a", 60.0, 0, ""),  # there may well be nothing new
        ("a", None, 1, ""),
    ],
)
def test_a_round_without_files_is_told(
    prefix: str, since: float | None, files: int, warning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console(prefix, since).summarise(Tally(files=files))
    assert capsys.readouterr().err == warning


def test_a_folder_that_cannot_be_listed_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console().unlisted(Unlisted("closed", "permission denied"))
    assert capsys.readouterr().out == "problem: UNREADABLE closed: permission denied\n"
