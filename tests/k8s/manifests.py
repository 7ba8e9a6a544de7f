"""Rendered manifests, and the parts of them that tests ask about."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from gateway.settings import Settings as GatewaySettings
from inference.settings import Settings as InferenceSettings
from tools.kustomizations import Combination, Document, combinations, render

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)
all_combinations = pytest.mark.parametrize("combination", combinations(), ids=str)

PREFIXES: dict[str, type[BaseSettings]] = {
    "IMAGESAFETY_GATEWAY_": GatewaySettings,
    "IMAGESAFETY_INFERENCE_": InferenceSettings,
}
# Of the libraries: OpenTelemetry's are a standard, Hugging Face's say where weights are.
OTHER_VARIABLES = re.compile(
    r"OTEL_(TRACES_EXPORTER|EXPORTER_OTLP_(PROTOCOL|ENDPOINT)|SERVICE_NAME)"
    r"|HF_(HOME|HUB_OFFLINE)|MODEL|PICTRS__MEDIA__EXTERNAL_VALIDATION"
    r"|PLACE|IMAGESAFETY_INFERENCE|IMAGESAFETY_(PICT_RS_API_KEY|ADMIN_TOKEN)"  # of commands
)
# Of inference with ViT-L-14, without what is bounded by settings: measured after a first start.
MODEL_BYTES = {"pytorch": 2.5 * 2**30, "cuda-graphs": 2.5 * 2**30, "openvino": 6.5 * 2**30}
DEMO_BYTES = 1.5 * 2**30
CHOICE_BYTES = 8 * 2**30  # while `auto` measures
UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)(m|[KMG]i|)", text)
    assert match, text
    return float(match[1]) * UNITS[match[2]]


@dataclass(frozen=True)
class Manifests:
    """The documents of a combination."""

    documents: list[Document]

    def of(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    def one(self, kind: str, name: str) -> Document:
        found = [item for item in self.of(kind) if item["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind}/{name}"
        return found[0]

    def workloads(self) -> list[Document]:
        scheduled = [
            {"kind": "Job", "metadata": item["metadata"], **item["spec"]["jobTemplate"]}
            for item in self.of("CronJob")
        ]
        return self.of("Deployment", "StatefulSet", "Job") + scheduled

    def containers(self) -> Iterator[tuple[Document, Document]]:
        """Each pod's spec with each of its containers, sidecars too."""
        for workload in self.workloads():
            spec = workload["spec"]["template"]["spec"]
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                yield spec, container

    def environment(self, container: Document) -> dict[str, str]:
        """What the container's variables are, in the order in which they override each other."""
        result: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                result |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", ()):
            result[variable["name"]] = self._value(variable, container)
        return result

    def _value(self, variable: Document, container: Document) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            return str(self.one("ConfigMap", reference["name"])["data"][reference["key"]])
        if "secretKeyRef" in source:
            return f"of the Secret {source['secretKeyRef']['name']}"
        field = source["resourceFieldRef"]
        assert field["containerName"] == container["name"]
        kind, _, name = field["resource"].partition(".")
        return str(int(-(-quantity(container["resources"][kind][name]) // 1)))


def manifests(combination: Combination) -> Manifests:
    return Manifests(render(combination))


def unknown_variables(environment: dict[str, str]) -> list[str]:
    """Variables that nothing reads."""
    return [
        name
        for name in environment
        if not OTHER_VARIABLES.fullmatch(name)
        and not any(
            name.removeprefix(prefix).lower() in settings.model_fields
            for prefix, settings in PREFIXES.items()
            if name.startswith(prefix)
        )
    ]


def read_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of the services that these variables are for; a wrong value raises."""
    for name in environment:
        monkeypatch.setenv(name, environment[name])
    read = [
        settings()
        for prefix, settings in PREFIXES.items()
        if any(name.startswith(prefix) for name in environment)
    ]
    for name in environment:
        monkeypatch.delenv(name)
    return read


def inference_needs(settings: InferenceSettings) -> float:
    """Bytes that it may take: decoders and uploads come only when a backend was chosen."""
    decoding = settings.decode_workers * settings.decode_memory
    model = MODEL_BYTES.get(settings.backend, max(MODEL_BYTES.values()))
    if settings.model == "demo":
        model = DEMO_BYTES
    serving = decoding + settings.max_bytes_in_flight + model
    return max(serving, CHOICE_BYTES if settings.backend == "auto" else 0)


def matches(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for expression in selector.get("matchExpressions") or ():
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
