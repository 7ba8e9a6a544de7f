"""Weights that are fetched before the service starts."""

import pytest

from inference.fetch_weights import main


def test_it_tells_the_digest_that_policies_may_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    name, digest = capsys.readouterr().out.split()
    assert name == "demo"
    assert digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("model", "reason"),
    [("ViT-B-32/nonsense", "open_clip knows the tags"), ("nonsense", "neither ARCH/TAG")],
)
def test_a_model_that_is_not_there_is_one_line(
    model: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([model]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_without_a_model_it_tells_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
