"""`imagesafety policy check FILE`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from imagesafety.client import ScoringClient, ScoringError
from imagesafety.command.service_options import (
    ServiceOptionsError,
    add_service_options,
    not_reached,
    service_address,
)
from imagesafety.command.subcommands import Commands
from imagesafety.policy import Mode, Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.provenance import provenance_warnings
from imagesafety.provenance_file import ProvenanceError, find_provenance
from imagesafety.provenance_report import described, placeholders, was_never_measured
from imagesafety.scores import ModelIdentity
from imagesafety.service_address import ServiceAddress

NEVER_MEASURED = (
    "its thresholds were not measured on your images, and its rules are enforced: see "
    "`imagesafety calibrate`"
)
PLACEHOLDERS = (
    "rule {} holds for no image: thresholds of 1 are placeholders, which `imagesafety calibrate` "
    "replaces by what it measures on your images"
)
_DESCRIBE_SECONDS = 10.0


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    check = commands.add_parser(
        "check",
        help="say whether a policy file can be used, and what its thresholds are worth",
        description="Reads a policy file and says what is wrong with it, or what is in it and how "
        "its thresholds came about. It warns, and exits with 0 all the same, when what "
        "`imagesafety calibrate` measured no longer fits.",
    )
    check.add_argument("file", help="policy file, or the name of one that ships with us")
    add_service_options(check, needed=False)
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the policy, says what is in it or what is wrong with it."""
    try:
        path = find_policy(options.file)
        policy = load_policy(path)
        service = service_address(options) if options.inference is not None else None
        model = asyncio.run(_model(service)) if service is not None else None
    except (PolicyError, ServiceOptionsError, OSError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    except ScoringError as error:
        print(f"imagesafety: the model is not known: {error}", file=sys.stderr)
        print(not_reached(options), file=sys.stderr)
        return 1
    print(f"{path}: a policy for model {policy.model}, {len(policy.concepts)} concepts")
    for rule in policy.rules:
        mode = f" ({rule.mode})" if rule.mode is not Mode.ENFORCE else ""
        print(f"  {rule.action} by {rule.name}: {' and '.join(rule.groups)}{mode}")
    warnings = [PLACEHOLDERS.format(rule) for rule in placeholders(policy)]
    warnings += _origin(policy)
    if model is not None and (reason := policy.mismatch(model.name, model.weights_digest)):
        warnings.append(reason)
    for warning in warnings:
        print(f"imagesafety: warning: {warning}", file=sys.stderr)
    return 0


async def _model(service: ServiceAddress) -> ModelIdentity:
    """Which model a service has. Raises ScoringError, or OSError for TLS files."""
    async with ScoringClient(service.target, service.tls) as client:
        return (await client.describe_model(timeout=_DESCRIBE_SECONDS)).model


def _origin(policy: Policy) -> list[str]:
    """Prints where the thresholds come from; what is to be said against them."""
    try:
        provenance = find_provenance(policy.text)
    except ProvenanceError as error:
        return [str(error)]
    if provenance is None:
        if was_never_measured(policy):
            return [NEVER_MEASURED]
        return []
    print("\n".join(described(provenance)))
    return [*provenance.warnings, *provenance_warnings(policy, provenance)]
