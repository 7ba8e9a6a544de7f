"""`imagesafety score FILE…`: similarities of each view, and what the policy says of them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.command.service_options import (
    ServiceOptionsError,
    add_service_options,
    not_reached,
    service_address,
)
from imagesafety.command.subcommands import Commands
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.scores import ImageScores
from imagesafety.service_address import ServiceAddress
from imagesafety.verdict import Verdict, adjusted, judge_image, named

CHUNK_BYTES = 64 * 1024


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "score",
        help="print similarities and the verdict for files",
        description="Scores files with a running inference service and prints, for each view, the "
        "similarity to each concept of the policy, and the policy's verdict. Exits with 0 if every "
        "file was scored, whatever the verdicts, and with 1 if one was not.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--policy", default="demo", help="policy file, or a shipped one's name (demo)"
    )
    add_service_options(parser)
    parser.add_argument(
        "--max-frames", type=int, help="most frames to encode, 0 for all (what the service says)"
    )
    parser.add_argument(
        "--tiles", type=int, choices=(1, 2, 3), help="look closer, in so many tiles per side"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a file (60)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Scores the files one after the other."""
    try:
        policy = load_policy(find_policy(options.policy))
        return asyncio.run(_score_files(options, policy, service_address(options)))
    except (PolicyError, ServiceOptionsError, OSError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2


async def _score_files(options: argparse.Namespace, policy: Policy, service: ServiceAddress) -> int:
    concepts = ConceptSet(policy.concepts)
    failures = 0
    async with ScoringClient(service.target, service.tls) as client:
        for file in options.files:
            try:
                chunks = _chunks(file)
                scores = await client.score_image(
                    chunks,
                    concepts=concepts,
                    timeout=options.timeout,
                    max_frames=options.max_frames,
                    tiles=options.tiles or policy.tiles,
                    closer_when=() if options.tiles else policy.closer_when,
                )
                print(report(file, policy, scores))
            except (ScoringError, OSError) as error:
                failures += 1
                print(f"{file}: not scored: {error}", file=sys.stderr)
                if isinstance(error, ScoringError) and error.code is grpc.StatusCode.UNAVAILABLE:
                    print(not_reached(options), file=sys.stderr)
                    return 1
    return 1 if failures else 0


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk


def report(file: Path, policy: Policy, scores: ImageScores) -> str:
    """The table for one file."""
    size, model = f"{scores.width}×{scores.height}", scores.model
    lines = [f"{file}: {scores.media_type}, {size}, {model.name} ({model.backend})"]
    if scores.total_frames > 1:
        compared = f"{scores.frames} of {scores.total_frames} frames compared"
        lines.append(f"  {scores.duration:g} s, {compared}")
    if scores.partial:
        lines.append(f"  only a part could be looked at: {scores.partial}")
    width = max(len(concept.name) for concept in policy.concepts)
    for view in scores.views:
        left, top, across, down = view.region
        place = f"  frame {view.frame_index} at {view.frame_time:g} s"
        on = f", on {view.background}" if view.background else ""
        lines.append(f"{place}, {across}×{down} pixels from ({left}, {top}){on}")
        raw = named(policy, view.similarities)
        corrected = adjusted(policy, raw)
        for name, value in raw.items():
            change = f"  adjusted to {corrected[name]:+.3f}" if corrected[name] != value else ""
            lines.append(
                f"    {name:<{width}}  {value:+.3f}{change}{_over(policy, name, corrected)}"
            )
    if reason := policy.mismatch(model.name, model.weights_digest):
        lines.append(f"  no verdict: {reason}")
    else:
        verdict = judge_image(policy, [view.similarities for view in scores.views])
        lines.append(f"  {_verdict(verdict)}")
    return "\n".join(lines)


def _over(policy: Policy, concept: str, values: dict[str, float]) -> str:
    """Which thresholds a concept reaches."""
    reached = [
        f"{group.name} {threshold:+.3f}{' (critical)' if critical else ''}"
        for group in policy.groups.values()
        for thresholds, critical in ((group.thresholds, False), (group.critical, True))
        if (threshold := thresholds.get(concept)) is not None and values[concept] >= threshold
    ]
    return f"  reaches {', '.join(reached)}" if reached else ""


def _verdict(verdict: Verdict) -> str:
    if verdict.rule is None:
        return "accept: no rule holds"
    answer = "reject" if verdict.rejects else "accept, flagged"
    return f"{answer}: rule {verdict.rule.name} holds"
