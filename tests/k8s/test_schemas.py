"""Each document holds against its schema, and the check would tell if it did not."""

import copy
from pathlib import Path

import pytest

from tests.k8s.manifests import all_combinations, manifests, needs_kubectl
from tools import prometheus_rule
from tools.kustomizations import Combination, Document
from tools.lint_k8s import problems

pytestmark = needs_kubectl
EVERYTHING = Combination(
    "overlays/cpu", ("components/mtls", "components/cert-manager", "monitoring")
)


@all_combinations
def test_each_document_is_valid(combination: Combination) -> None:
    for document in manifests(combination).documents:
        assert list(problems(document)) == [], document["metadata"]["name"]


def _document(kind: str, name: str) -> Document:
    return copy.deepcopy(manifests(EVERYTHING).one(kind, name))


def test_a_misspelt_field_of_a_built_in_kind_is_found() -> None:
    deployment = _document("Deployment", "gateway")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    assert any("terminationGracePeriod" in problem for problem in problems(deployment))


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [
        ("ServiceMonitor", "gateway", "endpoint"),
        ("PodMonitor", "inference", "podMetricEndpoints"),
        ("Certificate", "inference", "dnsName"),
    ],
)
def test_a_misspelt_field_of_an_operators_kind_is_found(kind: str, name: str, field: str) -> None:
    document = _document(kind, name)
    document["spec"][field] = []
    assert list(problems(document)) == [f"spec.{field}: unknown field"]


def test_a_kind_that_nothing_knows_is_an_error() -> None:
    unknown = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}}
    assert any("no schema" in problem for problem in problems(unknown))


def test_the_prometheus_rule_is_made_of_the_rules() -> None:
    rules = Path(prometheus_rule.RULES).read_text()
    assert prometheus_rule.RESOURCE.read_text() == prometheus_rule.resource(rules)
