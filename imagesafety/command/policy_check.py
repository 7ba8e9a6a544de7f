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
from imagesafety.provenance import Provenance, provenance_warnings, service_warnings
from imagesafety.provenance_file import ProvenanceError, find_provenance
from imagesafety.provenance_report import described, placeholders, was_never_measured
from imagesafety.scores import ModelDescription
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
        "`imagesafety calibrate` measured no longer fits: the policy, or the model, backend and "
        "frames of the service if --inference names one.",
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
        found = asyncio.run(_description(service)) if service is not None else None
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
    warnings += _origin(policy, found)
    for warning in warnings:
        print(f"imagesafety: warning: {warning}", file=sys.stderr)
    return 0


async def _description(service: ServiceAddress) -> ModelDescription:
    """Which model a service has. Raises ScoringError, or OSError for TLS files."""
    async with ScoringClient(service.target, service.tls) as client:
        return await client.describe_model(timeout=_DESCRIBE_SECONDS)


def _origin(policy: Policy, service: ModelDescription | None) -> list[str]:
    """Prints where the thresholds come from; what is to be said against them, here too."""
    warnings, provenance = _provenance(policy)
    if service is None:
        return warnings
    model = service.model
    if reason := policy.mismatch(model.name, model.weights_digest):
        return [*warnings, reason]
    if provenance is not None:
        frames = service.limits.default_max_frames
        warnings += service_warnings(provenance, model.backend, frames)
    return warnings


def _provenance(policy: Policy) -> tuple[list[str], Provenance | None]:
    """Prints it, if there is one; and what is to be said against it."""
    try:
        provenance = find_provenance(policy.text)
    except ProvenanceError as error:
        return [str(error)], None
    if provenance is None:
        return [NEVER_MEASURED] if was_never_measured(policy) else [], None
    print("\n".join(described(provenance)))
    return [*provenance.warnings, *provenance_warnings(policy, provenance)], provenance
