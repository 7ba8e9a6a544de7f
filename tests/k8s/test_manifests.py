"""What the schemas of Kubernetes can't say: that the parts of the manifests fit each other."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import Settings as GatewaySettings
from imagesafety.command import scan
from imagesafety.policy_file import parse_policy
from inference.settings import Settings as InferenceSettings
from tests.k8s.manifests import (
    Manifests,
    all_combinations,
    inference_needs,
    manifests,
    matches,
    needs_kubectl,
    quantity,
    read_settings,
    unknown_variables,
)
from tools.kustomizations import K8S, Combination, Document

pytestmark = needs_kubectl
ROOT = K8S.parent
MARGIN_SECONDS = 10  # between the end of a drain and SIGKILL
GATEWAY_BYTES = 256 * 2**20  # without what is kept for retries
# NodeLocal DNSCache's own address, and GKE's.
NODE_DNS = {"169.254.20.10/32", "169.254.169.254/32"}
# By labels that others give their pods, or that their installation gives them.
OUTSIDERS = (
    "imagesafety/",
    "kubernetes.io/metadata.name",
    "k8s-app",
    "app.kubernetes.io/name: prometheus",
    "app.kubernetes.io/name: opentelemetry-collector",
)


def pod_labels(item: Document) -> dict[str, str]:
    labels: dict[str, str] = item["spec"]["template"]["metadata"]["labels"]
    return labels


def container_ports(item: Document) -> dict[str, int]:
    spec = item["spec"]["template"]["spec"]
    return {
        port["name"]: port["containerPort"]
        for container in (*spec.get("initContainers", ()), *spec["containers"])
        for port in container.get("ports", ())
    }


def ours(container: Document) -> str:
    """Which of our services a container runs; empty for another's."""
    match = re.search(r"imagesafety-(gateway|inference)(:|$)", container["image"])
    return match[1] if match and container["name"] != "weights" else ""


@all_combinations
def test_everything_is_in_one_namespace(combination: Combination) -> None:
    found = manifests(combination)
    (namespace,) = found.of("Namespace")
    assert namespace["metadata"]["name"] == combination.namespace
    others = [item for item in found.documents if item is not namespace]
    assert {item["metadata"]["namespace"] for item in others} == {combination.namespace}


@all_combinations
def test_selectors_take_the_pods_of_their_own(combination: Combination) -> None:
    for item in manifests(combination).of("Deployment", "StatefulSet"):
        labels = pod_labels(item)
        assert matches(item["spec"]["selector"], labels)
        for spread in item["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            assert matches(spread["labelSelector"], labels)


@all_combinations
def test_each_service_has_pods_with_the_ports_that_it_names(combination: Combination) -> None:
    found = manifests(combination)
    for service in found.of("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        chosen = [item for item in found.workloads() if matches(selector, pod_labels(item))]
        assert len(chosen) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert container_ports(chosen[0])[port["targetPort"]] == port["port"]


@all_combinations
def test_probes_ask_ports_that_are_there(combination: Combination) -> None:
    found = manifests(combination)
    for _, container in found.containers():
        names = {port["name"] for port in container.get("ports", ())}
        numbers = {port["containerPort"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe := container.get(kind):
                assert ("grpc" in probe) != ("httpGet" in probe)
                if "grpc" in probe:
                    assert probe["grpc"]["port"] in numbers
                    assert "IMAGESAFETY_INFERENCE_TLS_KEY" not in found.environment(container)
                else:
                    assert probe["httpGet"]["port"] in names
        if ours(container):
            assert "livenessProbe" in container


@all_combinations
def test_services_listen_where_probes_and_services_call(combination: Combination) -> None:
    found = manifests(combination)
    for _, container in found.containers():
        if not ours(container):
            continue
        listening = {
            address.rpartition(":")[2]
            for name, address in found.environment(container).items()
            if name.endswith("LISTEN") and address.startswith("0.0.0.0:")
        }
        for port in container.get("ports", ()):
            assert str(port["containerPort"]) in listening, container["name"]


@all_combinations
def test_variables_are_settings_with_values_that_the_services_take(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests(combination)
    for _, container in found.containers():
        environment = found.environment(container)
        assert unknown_variables(environment) == []
        if ours(container):
            assert len(read_settings(environment, monkeypatch)) == 1


def test_the_example_of_a_secret_has_settings_that_are_refused_until_they_are_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = (K8S / "gateway-secret.example.env").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert unknown_variables(example) == []
    changed = {name: value.replace("change-me", "x" * 16) for name, value in example.items()}
    (settings,) = read_settings(changed, monkeypatch)
    assert settings.database_url.startswith("postgresql+psycopg://")
    assert set(settings.secrets) == {"example.social"}
    for name in ("IMAGESAFETY_GATEWAY_ADMIN_TOKEN", "IMAGESAFETY_GATEWAY_CLIENT_SECRETS"):
        with pytest.raises(ValidationError), monkeypatch.context() as patch:
            read_settings({**changed, name: example[name]}, patch)


@all_combinations
def test_the_grace_period_covers_the_drain(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests(combination)
    for spec, container in found.containers():
        if ours(container):
            environment = found.environment(container)
            (settings,) = read_settings(environment, monkeypatch)
            delay = float(environment.get("IMAGESAFETY_GATEWAY_DRAIN_DELAY", 0))
            drain = settings.drain_seconds + delay
            assert spec["terminationGracePeriodSeconds"] >= drain + MARGIN_SECONDS
            if ours(container) == "gateway":
                assert settings.drain_seconds >= settings.time_budget


@all_combinations
def test_mounts_have_volumes_and_volumes_are_mounted(combination: Combination) -> None:
    found = manifests(combination)
    for workload in found.workloads():
        spec = workload["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
        templates = workload["spec"].get("volumeClaimTemplates", ())
        claimed = {template["metadata"]["name"] for template in templates}
        mounted = set()
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            for mount in container.get("volumeMounts", ()):
                assert "subPath" not in mount  # such a mount never sees a change
                mounted.add(mount["name"])
        assert mounted == set(volumes) | claimed
        for volume in volumes.values():
            if "configMap" in volume:
                found.one("ConfigMap", volume["configMap"]["name"])
            if "persistentVolumeClaim" in volume:
                found.one("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


@all_combinations
def test_what_services_write_to_is_a_volume(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests(combination)
    for _, container in found.containers():
        if not ours(container):
            continue
        (settings,) = read_settings(found.environment(container), monkeypatch)
        writable = {
            Path(mount["mountPath"])
            for mount in container["volumeMounts"]
            if not mount.get("readOnly")
        }
        assert Path("/tmp") in writable
        if isinstance(settings, GatewaySettings):
            assert writable & {settings.data_folder, *settings.data_folder.parents}
        else:
            # One below the volume: the cache wants a folder that is this user's own.
            assert writable & set(settings.cache_folder.parents) - {Path("/")}


@all_combinations
def test_pods_are_restricted(combination: Combination) -> None:
    for spec, container in manifests(combination).containers():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        pod, own = spec["securityContext"], container["securityContext"]
        assert {**pod, **own}["runAsNonRoot"] is True
        assert {**pod, **own}["runAsUser"] > 0
        assert {**pod, **own}["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        if "imagesafety" in container["image"]:
            assert own["readOnlyRootFilesystem"] is True
            assert {**pod, **own}["runAsUser"] == 10001


@all_combinations
def test_memory_limits_have_room_for_what_the_settings_allow(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests(combination)
    for _, container in found.containers():
        service = ours(container)
        if not service:
            continue
        environment = found.environment(container)
        (settings,) = read_settings(environment, monkeypatch)
        if isinstance(settings, InferenceSettings):
            needed = inference_needs(settings)
            assert settings.threads == quantity(container["resources"]["limits"]["cpu"])
        else:
            needed = int(environment.get("IMAGESAFETY_GATEWAY_RETRY_BYTES", 0)) + GATEWAY_BYTES
        limit = quantity(container["resources"]["limits"]["memory"])
        assert limit >= needed
        # Memory that was promised to others would have the kernel end whole pods.
        assert (
            container["resources"]["requests"]["memory"]
            == (container["resources"]["limits"]["memory"])
        )


@all_combinations
def test_network_policies_are_about_pods_that_are_there(combination: Combination) -> None:
    found = manifests(combination)
    pods = {
        item["metadata"]["name"]: (pod_labels(item), container_ports(item))
        for item in found.workloads()
    }
    for policy in found.of("NetworkPolicy"):
        spec = policy["spec"]
        chosen = [item for item in pods.values() if matches(spec["podSelector"], item[0])]
        if spec["podSelector"] == {"matchLabels": {"imagesafety/database": "true"}}:
            continue  # a pod of the administrator's
        assert chosen, policy["metadata"]["name"]
        for rule in spec.get("ingress") or ():
            for port in rule["ports"]:
                assert all(port["port"] in ports for _, ports in chosen)
            for peer in rule["from"]:
                assert _is_known(peer, pods)
        for rule in spec.get("egress") or ():
            for peer in rule.get("to", ()):
                assert _is_known(peer, pods)


def _is_known(peer: Document, pods: dict[str, tuple[dict[str, str], Any]]) -> bool:
    if "ipBlock" in peer:
        return peer["ipBlock"]["cidr"] in NODE_DNS
    wanted = peer["podSelector"]["matchLabels"]
    if any(f"{name}: {value}".startswith(OUTSIDERS) for name, value in wanted.items()):
        return "namespaceSelector" in peer
    return any(matches(peer["podSelector"], labels) for labels, _ in pods.values())


@all_combinations
def test_who_asks_the_clusters_dns_may_ask_a_cache_on_the_node(combination: Combination) -> None:
    for policy in manifests(combination).of("NetworkPolicy"):
        for rule in policy["spec"].get("egress") or ():
            peers = rule.get("to", ())
            blocks = {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer}
            of_dns = any(
                peer.get("podSelector") == {"matchLabels": {"k8s-app": "kube-dns"}}
                for peer in peers
            )
            assert blocks == (NODE_DNS if of_dns else set())
            if of_dns:
                assert {port["port"] for port in rule["ports"]} == {53}


def test_a_database_of_the_namespace_is_reached_by_gateways_only() -> None:
    labels = {"imagesafety/database": "true"}
    rules = [
        rule
        for policy in manifests(Combination("overlays/cpu")).of("NetworkPolicy")
        if matches(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("ingress") or ()
    ]
    gateway = {"app.kubernetes.io/name": "imagesafety", "app.kubernetes.io/component": "gateway"}
    peers = [{"podSelector": {"matchLabels": gateway}}]
    assert rules == [{"from": peers, "ports": [{"port": 5432}]}]


@all_combinations
def test_names_that_callers_resolve_keep_their_addresses(combination: Combination) -> None:
    """gRPC asks again for a name without addresses after up to two minutes."""
    for service in manifests(combination).of("Service"):
        if service["metadata"]["name"] in ("inference-headless", "pict-rs"):
            assert service["spec"]["publishNotReadyAddresses"] is True


def _policies_of(found: Manifests, name: str) -> list[Document]:
    labels = pod_labels(found.one("Deployment", name))
    return [
        policy["spec"]
        for policy in found.of("NetworkPolicy")
        if matches(policy["spec"]["podSelector"], labels)
    ]


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "dev"])
def test_inference_reaches_nothing(overlay: str) -> None:
    policies = _policies_of(manifests(Combination(f"overlays/{overlay}")), "inference")
    assert any("Egress" in policy["policyTypes"] for policy in policies)
    assert [rule for policy in policies for rule in policy.get("egress") or ()] == []


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "dev"])
def test_images_come_to_inference_from_gateways_and_listed_clients_only(overlay: str) -> None:
    policies = _policies_of(manifests(Combination(f"overlays/{overlay}")), "inference")
    callers = [
        peer["podSelector"]["matchLabels"]
        for policy in policies
        for rule in policy.get("ingress") or ()
        for peer in rule["from"]
        if {"port": "grpc"} in rule["ports"]
    ]
    assert callers == [
        {"app.kubernetes.io/name": "imagesafety", "app.kubernetes.io/component": "gateway"},
        {"imagesafety/inference-client": "true"},
    ]


@all_combinations
def test_the_policy_can_be_used_and_is_for_the_model_of_inference(combination: Combination) -> None:
    found = manifests(combination)
    environments = [found.environment(container) for _, container in found.containers()]
    models = {
        environment["IMAGESAFETY_INFERENCE_MODEL"]
        for environment in environments
        if "IMAGESAFETY_INFERENCE_MODEL" in environment
    }
    policies = [
        parse_policy(item["data"]["policy.toml"])
        for item in found.of("ConfigMap")
        if "policy.toml" in item["data"]
    ]
    assert len(policies) == 1
    assert models <= {policies[0].model}


@all_combinations
def test_the_policys_config_map_keeps_its_name(combination: Combination) -> None:
    # With a digest in the name, each change would roll out pods in place of a reload.
    names = [
        item["metadata"]["name"]
        for item in manifests(combination).of("ConfigMap")
        if "policy.toml" in item["data"]
    ]
    assert names in (["policy"], ["imagesafety-policy"])


def test_policies_are_those_that_ship() -> None:
    shipped = {path.read_text() for path in (ROOT / "policies").glob("*.toml")}
    copies = list(K8S.rglob("policy.toml"))
    assert len(copies) == 3
    assert {path.read_text() for path in copies} <= shipped


@all_combinations
def test_a_disruption_budget_lets_a_node_be_drained(combination: Combination) -> None:
    found = manifests(combination)
    for budget in found.of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        chosen = [
            item
            for item in found.of("Deployment")
            if matches(budget["spec"]["selector"], pod_labels(item))
        ]
        assert len(chosen) == 1


@all_combinations
def test_autoscalers_have_a_target_whose_replicas_are_theirs(combination: Combination) -> None:
    found = manifests(combination)
    targets = [
        item["spec"]["scaleTargetRef"]["name"]
        for item in found.of("HorizontalPodAutoscaler", "ScaledObject")
    ]
    assert len(targets) == len(set(targets))
    for target in targets:
        assert "replicas" not in found.one("Deployment", target)["spec"]


@pytest.mark.parametrize("file", ["hpa/prometheus-adapter.yaml", "keda/scaled-object.yaml"])
def test_autoscalers_leave_bulk_work_out(file: str) -> None:
    text = (K8S / "components" / file).read_text()
    queries = re.findall(r"imagesafety_batch_wait_seconds_\w+\{(.*?)\}", text)
    assert len(queries) >= 2
    assert all('priority="interactive"' in query for query in queries)


@all_combinations
def test_services_are_run_from_images_of_the_same_release(combination: Combination) -> None:
    tags = {
        container["image"].partition(":")[2].partition("-")[0]
        for _, container in manifests(combination).containers()
        if "imagesafety" in container["image"]
    }
    plain = combination.overlay in ("base", "overlays/sidecar/pict-rs.yaml")
    assert tags == ({""} if plain else {"0.1.0"})


def test_a_gpu_is_asked_for_and_its_absence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = manifests(Combination("overlays/gpu"))
    ((container,),) = [
        item["spec"]["template"]["spec"]["containers"]
        for item in found.of("Deployment")
        if item["metadata"]["name"] == "inference"
    ]
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (settings,) = read_settings(found.environment(container), monkeypatch)
    assert settings.device == "cuda"


def test_certificates_have_the_name_by_which_inference_is_called() -> None:
    found = manifests(Combination("overlays/cpu", ("components/mtls", "components/cert-manager")))
    ((gateway,),) = [
        item["spec"]["template"]["spec"]["containers"]
        for item in found.of("Deployment")
        if item["metadata"]["name"] == "gateway"
    ]
    target = found.environment(gateway)["IMAGESAFETY_GATEWAY_INFERENCE"]
    host = target.removeprefix("dns:///").partition(":")[0]
    assert host in found.one("Certificate", "inference")["spec"]["dnsNames"]
    made = {item["spec"]["secretName"] for item in found.of("Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for item in found.of("Deployment")
        for volume in item["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert mounted <= made


def test_monitors_find_their_targets() -> None:
    found = manifests(Combination("overlays/cpu", ("monitoring",)))
    service = found.one("Service", "gateway-admin")
    monitor = found.one("ServiceMonitor", "gateway")["spec"]
    assert matches(monitor["selector"], service["metadata"]["labels"])
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    others = [item for item in found.of("Service") if item is not service]
    assert not any(matches(monitor["selector"], item["metadata"]["labels"]) for item in others)
    inference = found.one("Deployment", "inference")
    pods = found.one("PodMonitor", "inference")["spec"]
    assert matches(pods["selector"], pod_labels(inference))
    assert pods["podMetricsEndpoints"][0]["port"] in container_ports(inference)


def test_weights_are_fetched_before_inference_reads_them_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = manifests(Combination("overlays/cpu"))
    job = found.one("Job", "weights")["spec"]["template"]["spec"]
    inference = found.one("Deployment", "inference")["spec"]["template"]["spec"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for spec in (job, inference)
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == ["weights", "weights"]
    fetching, reading = (found.environment(spec["containers"][0]) for spec in (job, inference))
    assert fetching["MODEL"] == reading["IMAGESAFETY_INFERENCE_MODEL"]
    assert fetching["HF_HOME"] == reading["HF_HOME"]
    assert reading["HF_HUB_OFFLINE"] == "1"
    # It can't be changed by a later apply, so it must not stay.
    assert found.one("Job", "weights")["spec"]["ttlSecondsAfterFinished"] <= 600


def test_containers_of_a_pod_have_a_temporary_folder_of_their_own() -> None:
    found = manifests(Combination("overlays/sidecar"))
    volumes = [
        mount["name"]
        for _, container in found.containers()
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/tmp"
    ]
    assert len(volumes) == len(set(volumes)) == 2


@pytest.mark.parametrize("added", [(), ("components/mtls",)], ids=["plain", "mtls"])
def test_scans_are_started_as_the_command_understands_it(added: tuple[str, ...]) -> None:
    found = manifests(Combination("overlays/cpu", ("components/scan", *added)))
    job = found.one("CronJob", "scan")["spec"]["jobTemplate"]["spec"]["template"]
    (container,) = job["spec"]["containers"]
    environment = found.environment(container)
    parser = argparse.ArgumentParser(exit_on_error=False)
    scan.add_to(parser.add_subparsers())
    place = environment["PLACE"]
    options = parser.parse_args([arg.replace("$(PLACE)", place) for arg in container["args"]])
    assert (options.place, options.yes) == (place, False)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    for written in (options.state, options.report):
        assert not mounts[str(Path(written).parent)].get("readOnly")
    assert bool(options.ca) == bool(added)
    if added:
        assert mounts[str(Path(options.ca).parent)]["name"] == "tls"
    # As the gateways do, it calls inference by a name and is let in by it.
    gateway = found.one("Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    target = found.environment(gateway)["IMAGESAFETY_GATEWAY_INFERENCE"]
    assert environment["IMAGESAFETY_INFERENCE"] == target
    callers = [
        peer["podSelector"]
        for policy in _policies_of(found, "inference")
        for rule in policy.get("ingress") or ()
        for peer in rule["from"]
        if {"port": "grpc"} in rule["ports"]
    ]
    assert any(matches(selector, job["metadata"]["labels"]) for selector in callers)
