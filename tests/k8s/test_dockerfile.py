"""The Dockerfile: what it copies is there, and its images are as the documents say."""

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser

from tools.kustomizations import K8S
from tools.requirements import requirements

ROOT = K8S.parent
SERVICES = ("gateway", "inference", "all-in-one")
IMAGES = (*SERVICES, "tools")


@cache
def stages() -> dict[str, list[dict[str, Any]]]:
    """The instructions of each stage, by its name; the first is its FROM."""
    result: dict[str, list[dict[str, Any]]] = {}
    for step in DockerfileParser(path=str(ROOT / "Dockerfile")).structure:
        if step["instruction"] == "FROM":
            result[step["value"].split()[2]] = []
        if result and step["instruction"] != "COMMENT":
            result[list(result)[-1]].append(step)
    return result


def chain(stage: str) -> list[dict[str, Any]]:
    """The instructions of a stage after those of the stages that it stands on."""
    own = stages()[stage]
    base = own[0]["value"].split()[0]
    return [*(chain(base) if base in stages() else ()), *own]


def values(stage: str, instruction: str) -> list[str]:
    return [step["value"] for step in chain(stage) if step["instruction"] == instruction]


def environment(stage: str) -> dict[str, str]:
    return dict(
        variable.split("=", 1) for value in values(stage, "ENV") for variable in value.split()
    )


@pytest.mark.parametrize("image", IMAGES)
def test_packages_are_installed_in_a_stage_of_their_own(image: str) -> None:
    assert not any("pip" in command for command in values(image, "RUN"))
    assert any("--from=" in value for value in values(image, "COPY"))


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_a_user_that_is_not_root(image: str) -> None:
    assert values(image, "USER") == ["10001:10001"]


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("gateway", ["python", "-m", "gateway"]),
        ("inference", ["python", "-m", "inference"]),
        ("all-in-one", ["imagesafety", "up"]),
        ("tools", ["imagesafety"]),
    ],
)
def test_images_start_the_services(image: str, command: list[str]) -> None:
    assert json.loads(values(image, "ENTRYPOINT")[-1]) == ["tini", "--", *command]
    assert any("tini" in step for step in values(image, "RUN"))


def test_the_gateways_image_has_none_of_the_packages_of_inference() -> None:
    assert not any("torch" in value for value in values("gateway-packages", "RUN"))
    names = {re.split(r"[\[<>=]", item)[0] for item in requirements("gateway")}
    assert not {"torch", "open_clip_torch", "pillow", "numpy", "av"} & names


@pytest.mark.parametrize("image", IMAGES)
def test_images_have_the_distribution_installed_over_their_packages(image: str) -> None:
    copied = [value.split() for value in values(image, "COPY")]
    assert [parts[1:] for parts in copied] == [["/opt/venv", "/opt/venv"]] * 2
    assert copied[0][0].endswith("-packages")
    assert copied[1][0] == "--from=distribution"


def test_the_distribution_is_made_of_all_packages_that_it_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {Path(value.split()[0]).parts[0] for value in values("distribution", "COPY")}
    assert {*packages, "policies"} <= copied


@pytest.mark.parametrize("stage", list(stages()))
def test_what_is_copied_is_there_and_is_not_ignored(stage: str) -> None:
    taken = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for value in values(stage, "COPY"):
        if "--from=" in value:
            assert value.split()[0].removeprefix("--from=") in stages()
            continue
        for source in value.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert taken & {source, *map(str, Path(source).parents)}, source


@pytest.mark.parametrize("image", SERVICES)
def test_the_health_check_asks_a_port_that_the_service_listens_on(image: str) -> None:
    (check,) = values(image, "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    compile(command[2], "health check", "exec")
    port = re.search(r"127\.0\.0\.1:(\d+)/", command[2])
    assert port
    listening = {
        address.rpartition(":")[2]
        for name, address in environment(image).items()
        if name.endswith("LISTEN")
    }
    assert port[1] in listening
    assert port[1] in " ".join(values(image, "EXPOSE")).split()


def test_each_imports_what_its_image_has() -> None:
    # A stranger to the image, such as a module of tools/, would be missed at the start only.
    for package in ("gateway", "inference"):
        code = f"import sys, {package}.server; print(*{{m.partition('.')[0] for m in sys.modules}})"
        loaded = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        assert not {"tools", "tests", "benchmarks"} & set(loaded)
