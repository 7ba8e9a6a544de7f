"""Renders every overlay and component of k8s/, and validates each document against its schema.

Built-in kinds are checked strictly against the schemas of the oldest and of the newest version of
Kubernetes that we say to support; kinds of operators against models that were generated of their
definitions. A document that nothing can check is an error. `make lint-k8s` runs this.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import kubernetes_validate
from pydantic import BaseModel, ValidationError

from tools.kustomizations import Document, combinations, render

OLDEST, NEWEST = "1.29", "1.37"
# Kinds that operators define: where their models are.
OPERATORS: Mapping[tuple[str, str], str] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PodMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
    ("keda.sh/v1alpha1", "ScaledObject"): "cloudcoil.models.keda.v1alpha1",
    ("cert-manager.io/v1", "Issuer"): "cloudcoil.models.cert_manager.v1",
    ("cert-manager.io/v1", "Certificate"): "cloudcoil.models.cert_manager.v1",
}


def problems(document: Document) -> Iterator[str]:
    """What is wrong with a document, by its schema."""
    kind = (document.get("apiVersion", ""), document.get("kind", ""))
    if kind in OPERATORS:
        yield from _operator_problems(document, _model(OPERATORS[kind], kind[1]))
        return
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(item) for item in error.path)
            yield f"{place}: {error.message[:300]} (Kubernetes {version})"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"no schema for {' '.join(kind)} in Kubernetes {version}"


@cache
def _model(module: str, kind: str) -> type[BaseModel]:
    model: type[BaseModel] = getattr(import_module(module), kind)
    return model


def _operator_problems(document: Document, model: type[BaseModel]) -> Iterator[str]:
    try:
        read = model.model_validate(document)
    except ValidationError as error:
        yield from (
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        return
    # The models leave out what they don't know: a misspelt field is one that does not come back.
    known = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    yield from (f"{place}: unknown field" for place in _absent(document, known))


def _absent(value: Any, known: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(known, dict) or key not in known:
                yield f"{place}.{key}".lstrip(".")
            else:
                yield from _absent(item, known[key], f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _absent(item, known[index], f"{place}[{index}]")


def main() -> int:
    """Checks everything; the exit code."""
    if shutil.which("kubectl") is None:
        print("lint-k8s: kubectl is not installed, so the manifests are NOT checked")
        return 0
    documents, wrong = 0, 0
    for combination in combinations():
        rendered = render(combination)
        documents += len(rendered)
        for document in rendered:
            for problem in problems(document):
                wrong += 1
                name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
                print(f"{combination}: {name}: {problem}", file=sys.stderr)
    print(f"lint-k8s: {documents} documents of {len(combinations())} combinations, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
