"""The commands of deploy/README.md, which `make containers` runs: all images, nothing unknown."""

import yaml

from tests.k8s.test_compose import FILES, services
from tests.k8s.test_dockerfile import IMAGES
from tools.containers.images import documented_builds
from tools.containers.plays import documented_commands


def test_each_image_of_the_compose_files_is_built_by_a_documented_command() -> None:
    built = {line[line.index("--tag") + 1]: line for line in documented_builds()}
    targets = {line[line.index("--target") + 1] for line in built.values()}
    used = {
        service["image"]
        for file in FILES
        for service in services(file.name).values()
        if service.get("image", "").startswith("imagesafety")
    }
    assert targets == set(IMAGES)
    # For a GPU, the same target has another tag.
    assert {image.replace("-cuda", "-cpu") for image in used} == built.keys()


def test_documented_commands_name_services_of_the_file() -> None:
    known = services("compose.imagesafety.yml")
    commands = documented_commands()
    assert ["up", "-d"] in commands
    run = [line[line.index("--rm") + 1] for line in commands if line[0] == "run"]
    assert set(run) == {"weights", "scan"}
    assert set(run) <= known.keys()


def test_the_clash_of_networks_is_played_with_the_shipped_one() -> None:
    for file in FILES:
        networks = yaml.safe_load(file.read_text()).get("networks", {})
        if "validator" in networks:
            (subnet,) = networks["validator"]["ipam"]["config"]
            assert subnet["subnet"] == "${IMAGESAFETY_NETWORK:-10.140.51}.0/29"
