"""The command line, and the commands of the README as they are written there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Pair
from tests.e2e.processes import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def imagesafety(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagesafety.command", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_score_prints_similarities_and_the_verdict(pair: Pair) -> None:
    files = ("examples/red-triangle.png", "examples/blue-circle.png")
    ended = imagesafety("score", "--inference", pair.inference, *files)
    assert (ended.returncode, ended.stderr) == (0, "")
    bad, good = ended.stdout.split("examples/blue-circle.png")
    assert "reject: rule red-and-triangle holds" in bad
    assert "accept: no rule holds" in good
    similarity = dict(re.findall(r"^ +(\w+) +([+-]\d\.\d{3})", bad, re.MULTILINE))
    assert set(similarity) == {"red", "triangle", "blue", "circle"}
    assert float(similarity["red"]) > float(similarity["blue"])


def test_score_goes_on_after_a_file_that_cannot_be_scored(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    files = (str(tmp_path / "text.png"), "/nowhere.png", "examples/blue-circle.png")
    ended = imagesafety("score", "--inference", pair.inference, *files)
    assert ended.returncode == 1
    assert "text.png: not scored: INVALID_ARGUMENT (UNSUPPORTED_TYPE)" in ended.stderr
    assert "/nowhere.png: not scored:" in ended.stderr
    assert "accept: no rule holds" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_score_without_a_service_says_how_to_start_one() -> None:
    target = f"127.0.0.1:{free_port()}"
    ended = imagesafety("score", "--inference", target, "examples/blue-circle.png")
    assert ended.returncode == 1
    assert "imagesafety up" in ended.stderr


def test_policy_check(tmp_path: Path) -> None:
    ended = imagesafety("policy", "check", "policies/vit-l-14-openai.toml")
    assert ended.returncode == 0
    assert "a policy for model ViT-L-14/openai, 22 concepts" in ended.stdout
    (tmp_path / "p.toml").write_text("model = 3\n")
    ended = imagesafety("policy", "check", str(tmp_path / "p.toml"))
    assert ended.returncode == 2
    assert "p.toml, line 1: " in ended.stderr or "p.toml: " in ended.stderr


@pytest.mark.parametrize("name", ["vit-b-32-siglip2-256", "vit-b-16-siglip2-256"])
def test_policy_check_says_that_placeholders_reject_nothing(name: str) -> None:
    ended = imagesafety("policy", "check", name)
    assert ended.returncode == 0
    assert "reject by minor-and-sexual: minor and sexual (shadow)" in ended.stdout
    assert "rule minor-and-sexual holds for no image: thresholds of 1 are" in ended.stderr


def test_the_service_may_be_named_by_a_variable(pair: Pair) -> None:
    command = [sys.executable, "-m", "imagesafety.command", "score", "examples/blue-circle.png"]
    environment = {**os.environ, "IMAGESAFETY_INFERENCE": pair.inference}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_curls(pair: Pair) -> None:
    commands = re.findall(r"^curl -i (?:.*\\\n)*.*$", README, re.MULTILINE)
    statuses = []
    for command in commands:
        command = command.replace("http://127.0.0.1:14051", f"http://{pair.gateway}")
        ended = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        statuses.append(ended.stdout.split()[1])
    assert statuses == ["406", "200"]


def test_the_readmes_other_commands_exist() -> None:
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    for module in re.findall(r"python -m ([a-z_.]+)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for link in re.findall(r"\]\(([a-z][^):#]+)", README):
        assert (ROOT / link).exists(), link
