"""What can be rendered of k8s/: each overlay, alone and with each component that fits it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parent.parent / "k8s"
Document = dict[str, Any]

# In this order: what an administrator may add to the overlays of the fleet.
_ADDITIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("monitoring",),
    ("components/tracing",),
    ("components/mtls",),
    ("components/mtls", "components/cert-manager"),
    ("components/scan",),
    ("components/scan", "components/mtls"),
    ("components/mtls", "components/cert-manager", "components/tracing", "monitoring"),
)


@dataclass(frozen=True)
class Combination:
    """A base or overlay below k8s/, and components that are added to it."""

    overlay: str
    components: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """Where it belongs."""
        return "pictrs" if "sidecar" in self.overlay else "imagesafety"

    def __str__(self) -> str:
        return " + ".join((self.overlay, *self.components))


def combinations() -> list[Combination]:
    """All that are checked."""
    fleet = [
        Combination(f"overlays/{name}", added)
        for name in ("cpu", "gpu", "dev")
        for added in _ADDITIONS
    ]
    return [
        Combination("base"),
        *fleet,
        Combination("base", ("components/weights", "components/keda")),
        Combination("overlays/dev", ("components/keda",)),
        Combination("overlays/sidecar"),
        Combination("overlays/sidecar/pict-rs.yaml", ("components/sidecar-gateway",)),
    ]


@cache
def _rendered(combination: Combination) -> str:
    # kustomize takes a component only from a kustomization, and none of a path that is absolute.
    with tempfile.TemporaryDirectory(dir=K8S, prefix=".combination-") as folder:
        content = {
            "namespace": combination.namespace,
            "resources": [_relative(combination.overlay, folder)],
            "components": [_relative(name, folder) for name in combination.components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(content))
        # A file as a resource has to be allowed; whatever else is checked as it will be used.
        file = combination.overlay.endswith(".yaml")
        flags = ["--load-restrictor", "LoadRestrictionsNone"] if file else []
        done = subprocess.run(  # noqa: S603
            ["kubectl", "kustomize", folder, *flags],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise ValueError(f"{combination}: {done.stderr.strip()[:2000]}")
    return done.stdout


def _relative(name: str, folder: str) -> str:
    return os.path.relpath(K8S / name, folder)


def render(combination: Combination) -> list[Document]:
    """Its documents. Raises ValueError with what kustomize says."""
    return [document for document in yaml.safe_load_all(_rendered(combination)) if document]
