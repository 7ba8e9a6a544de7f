"""Writes k8s/monitoring/prometheus-rule.yaml, or checks with --check that it is fresh.

promtool reads plain rules, the Prometheus operator reads them as the spec of a PrometheusRule, and
kustomize can't make one of the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

MONITORING = Path(__file__).parent.parent / "k8s" / "monitoring"
RULES, RESOURCE = MONITORING / "rules.yaml", MONITORING / "prometheus-rule.yaml"


def resource(rules: str) -> str:
    """The PrometheusRule of a rules file, as YAML."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "imagesafety"},
        "spec": yaml.safe_load(rules),
    }
    head = "# Made of rules.yaml by tools/prometheus_rule.py.\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def main() -> int:
    """Writes or checks; the exit code."""
    made = resource(RULES.read_text(encoding="utf-8"))
    if "--check" not in sys.argv:
        RESOURCE.write_text(made, encoding="utf-8")
    elif not RESOURCE.is_file() or RESOURCE.read_text(encoding="utf-8") != made:
        print(f"{RESOURCE} is stale: run {sys.argv[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
