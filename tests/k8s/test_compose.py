"""The files for Docker Compose: valid by its specification, and for the settings that there are."""

import argparse
import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from imagesafety.command import scan
from tests.k8s.manifests import inference_needs, read_settings, unknown_variables
from tools.kustomizations import K8S

DEPLOY = K8S.parent / "deploy"
FILES = sorted(DEPLOY.glob("compose.*.yml"))
# Of Lemmy's own docker-compose.yml, as its Ansible playbook has it.
LEMMY = {"proxy", "lemmy", "lemmy-ui", "pictrs", "postgres", "postfix"}
MEMORY = {"m": 2**20, "g": 2**30}
PICTRS_SAFETY = ("USE_SQLITE", "FEDIVERSE_SAFETY_", "POSTGRES_URI", "KNOWN_PICTRS_IPS")


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / name).read_text())["services"]
    return found


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Its variables, with what stands for those of the shell that aren't set."""
    items = (item.split("=", 1) for item in service.get("environment", ()))
    return {name: substituted(value) for name, value in items}


def substituted(text: str) -> str:
    return re.sub(r"\$\{\w+(:[-+])?([^}]*)\}", lambda m: m[2] if m[1] == ":-" else "", text)


def test_files_are_valid_by_the_specification_of_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, *FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", [path.name for path in FILES])
def test_variables_are_settings_with_values_that_the_services_take(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in services(file).values():
        variables = {
            name: value
            for name, value in environment(service).items()
            if not name.startswith(PICTRS_SAFETY)
        }
        assert unknown_variables(variables) == []
        read_settings(variables, monkeypatch)


@pytest.mark.parametrize(
    ("file", "gateway"),
    [
        ("compose.imagesafety.yml", "imagesafety"),
        ("compose.pictrs-safety.yml", "pictrs-safety"),
    ],
)
def test_pict_rs_calls_an_address_on_a_network_that_only_the_gateway_shares(
    file: str, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load((DEPLOY / file).read_text())
    added = document["services"]
    (url,) = environment(added["pictrs"]).values()
    on_it = {name: one for name, one in added.items() if "validator" in one.get("networks", {})}
    addresses = {
        name: ip_address(substituted(one["networks"]["validator"]["ipv4_address"]))
        for name, one in on_it.items()
    }
    assert addresses.keys() == {"pictrs", gateway}
    assert url == f"http://{addresses[gateway]}:14051/api/v1/scan/IPADDR"
    network = document["networks"]["validator"]
    assert network["internal"] is True
    (subnet,) = network["ipam"]["config"]
    assert set(addresses.values()) <= set(ip_network(substituted(subnet["subnet"])).hosts())
    ours = {k: v for k, v in environment(added[gateway]).items() if k.startswith("IMAGESAFETY_")}
    settings = read_settings(ours, monkeypatch)[0]
    assert settings.networks == (ip_network(addresses["pictrs"]),)
    # pict-rs goes on being reached by Lemmy, and the gateway publishes no port for uploads.
    assert "default" in added["pictrs"]["networks"]
    assert not any("14051" in port for one in added.values() for port in one.get("ports", ()))


def test_lemmys_services_keep_all_but_their_validator() -> None:
    added = services("compose.imagesafety.yml")
    assert added.keys() & LEMMY == {"pictrs"}
    assert added["pictrs"].keys() == {"environment", "depends_on", "networks"}
    assert environment(added["pictrs"]).keys() == {"PICTRS__MEDIA__EXTERNAL_VALIDATION"}


def test_pict_rs_and_inference_are_reached_by_the_names_that_services_have() -> None:
    added = services("compose.imagesafety.yml")
    assert added["imagesafety"]["hostname"] == "imagesafety"
    target = environment(added["imagesafety"])["IMAGESAFETY_GATEWAY_INFERENCE"]
    assert target == "dns:///inference:50051"
    assert set(added["inference"]["networks"]) <= set(added["imagesafety"]["networks"])


def test_inference_has_no_way_out() -> None:
    document = yaml.safe_load((DEPLOY / "compose.imagesafety.yml").read_text())
    networks = document["services"]["inference"]["networks"]
    assert networks
    assert all(document["networks"][name]["internal"] for name in networks)
    assert "ports" not in document["services"]["inference"]


@pytest.mark.parametrize("name", ["imagesafety", "inference", "weights", "scan"])
def test_containers_have_no_more_rights_than_they_need(name: str) -> None:
    service = services("compose.imagesafety.yml")[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]


def test_limits_and_grace_periods_fit_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    added = services("compose.imagesafety.yml")
    for name in ("imagesafety", "inference"):
        (settings,) = read_settings(environment(added[name]), monkeypatch)
        assert int(added[name]["stop_grace_period"][:-1]) >= settings.drain_seconds + 10
    limit = added["inference"]["mem_limit"]
    assert settings.threads == settings.decode_workers == added["inference"]["cpus"]
    assert int(limit[:-1]) * MEMORY[limit[-1]] >= inference_needs(settings)


def test_both_services_in_one_container_fit_into_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services("compose.pictrs-safety.yml")["pictrs-safety"]
    ours = {k: v for k, v in environment(service).items() if not k.startswith(PICTRS_SAFETY)}
    _, settings = read_settings(ours, monkeypatch)
    assert settings.threads == settings.decode_workers == service["cpus"]
    limit, gateway = service["mem_limit"], 512 * 2**20
    assert int(limit[:-1]) * MEMORY[limit[-1]] >= inference_needs(settings) + gateway


def test_on_a_gpu_the_backend_is_one_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [services(f"compose.{name}.yml")["inference"] for name in ("imagesafety", "gpu")]
    (settings,) = read_settings(environment(both[0]) | environment(both[1]), monkeypatch)
    assert (settings.device, settings.backend) == ("cuda", "cuda-graphs")


def test_pict_rs_starts_whatever_ours_do() -> None:
    added = services("compose.imagesafety.yml")
    conditions = [item["condition"] for item in added["pictrs"]["depends_on"].values()]
    assert conditions == ["service_started"]


@pytest.mark.parametrize("file", [path.name for path in FILES])
def test_images_that_are_built_here_are_not_looked_for_in_registries(file: str) -> None:
    for service in services(file).values():
        if service.get("image", "").startswith("imagesafety"):
            assert service["pull_policy"] == "never"


def test_pictrs_safetys_service_has_another_image_and_is_called_the_same() -> None:
    service = services("compose.pictrs-safety.yml")["pictrs-safety"]
    assert service["hostname"] == "pictrs-safety"
    assert service["image"] == "imagesafety:0.1.0"
    assert service["expose"] == ["14051"]
    assert service["user"] == "991:991"


def test_scans_are_started_as_the_command_understands_it() -> None:
    service = services("compose.imagesafety.yml")["scan"]
    command = service["entrypoint"][service["entrypoint"].index("scan") :]
    parser = argparse.ArgumentParser(exit_on_error=False)
    scan.add_to(parser.add_subparsers())
    options = parser.parse_args([*command, "--action", "purge", "--yes"])
    assert (options.place, options.action) == ("pict-rs+http://pictrs:8080", "purge")
    assert not parser.parse_args(command).yes
    inference = services("compose.imagesafety.yml")["inference"]
    assert set(inference["networks"]) <= set(service["networks"])
    assert service["volumes"][0].endswith(":/data")
    assert "profiles" in service
