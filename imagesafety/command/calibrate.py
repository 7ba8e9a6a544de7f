"""`imagesafety calibrate MATERIAL`: thresholds by what was measured on one's own images."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagesafety.command.service_options import (
    ServiceOptionsError,
    add_service_options,
    not_reached,
    service_address,
)
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.service_address import ServiceAddress

if TYPE_CHECKING:
    from imagesafety.calibration.calibrate import Budget, Costs
    from imagesafety.calibration.gathered import Gathered
    from imagesafety.calibration.scoring import Target

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXTRA = ("numpy", "scipy", "pyarrow")


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "calibrate",
        help="set a policy's thresholds by a false-reject budget, measured on your own images",
        description="Scores your images with a running inference service and writes the policy "
        "with thresholds at which it rejects at most so many harmless images: the whole policy, by "
        "all its rules that reject, those in shadow mode too. Where it came from is written "
        "above it, as comments that `imagesafety policy check` reads.",
    )
    parser.add_argument(
        "material",
        type=Path,
        help="a folder with folders accept and reject, or a CSV or Parquet file with the columns "
        "path and label; a folder without folders of labels is taken as all harmless",
    )
    parser.add_argument(
        "--policy", required=True, help="the policy to calibrate: a file, or a shipped one's name"
    )
    parser.add_argument("--output", required=True, type=Path, help="where to write the new policy")
    parser.add_argument("--force", action="store_true", help="write over another file there")
    parser.add_argument("--model", help="carry the policy to this model, which inference has")
    parser.add_argument("--cache", type=Path, help="file that keeps scores for the next time")
    add_service_options(parser)
    _add_goals(parser)
    parser.set_defaults(run=run)


def _add_goals(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_argument_group("by a budget")
    budget.add_argument(
        "--max-false-rejects",
        type=_share,
        metavar="SHARE",
        help="of harmless images, such as 10/10000, 1e-3 or 0.1%%",
    )
    budget.add_argument(
        "--confidence",
        type=_share,
        default=0.95,
        help="with which the budget is to be promised (0.95)",
    )
    trade = parser.add_argument_group("by what mistakes cost, with images of both kinds")
    trade.add_argument("--cost", type=_cost, help="of a false accept, in false rejects")
    trade.add_argument("--cost-false-reject", type=_cost, metavar="COST")
    trade.add_argument("--cost-false-accept", type=_cost, metavar="COST")
    trade.add_argument(
        "--prevalence", type=_share, metavar="SHARE", help="of uploads that are to be rejected"
    )


def _share(text: str) -> float:
    """A share between 0 and 1: 10/10000, 1e-3 or 0.1%."""
    number = r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*"
    try:
        if found := re.fullmatch(f"{number}/{number}", text):
            share = float(found[1]) / float(found[2])
        elif found := re.fullmatch(f"{number}%\\s*", text):
            share = float(found[1]) / 100
        else:
            share = float(text)
    except (ValueError, ZeroDivisionError):
        share = -1
    if not 0 < share < 1:
        message = f"{text!r} is no share between 0 and 1, such as 10/10000, 1e-3 or 0.1%"
        raise argparse.ArgumentTypeError(message)
    return share


def _cost(text: str) -> float:
    try:
        cost = float(text)
    except ValueError:
        cost = -1
    if not 0 < cost < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no cost over 0")
    return cost


class _OptionsError(Exception):
    """Options that don't go together, or files that are not to be written."""


def run(options: argparse.Namespace) -> int:
    """Scores and writes; 2 for what can't be meant, 1 for what failed."""
    try:
        from imagesafety.calibration.budget import CalibrationError
        from imagesafety.client import ScoringError
        from imagesafety.evaluation.material import MaterialError
        from imagesafety.evaluation.score_cache import CacheError
        from imagesafety.evaluation.scored import OtherModelError
        from imagesafety.provenance_file import ProvenanceError
        from imagesafety.scoring_error import ServiceUnavailableError
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        print("imagesafety: needs `pip install 'imagesafety[evaluate]'`", file=sys.stderr)
        return 2
    try:
        _calibrate(options)
    except (PolicyError, ServiceOptionsError, _OptionsError, MaterialError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    except (CalibrationError, OtherModelError, ProvenanceError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    except (ScoringError, ServiceUnavailableError) as error:
        print(f"imagesafety: no scores: {error}", file=sys.stderr)
        print(not_reached(options), file=sys.stderr)
        return 1
    except (CacheError, OSError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 1
    return 0


def _check_output(options: argparse.Namespace, path: Path, policy: Policy) -> None:
    """Finds out before the work whether its result may be written. Raises _OptionsError."""
    output: Path = options.output
    if not output.parent.is_dir():
        raise _OptionsError(f"{output.parent}: there is no such folder to write to")
    if output.is_dir():
        raise _OptionsError(f"{output}: is a folder")
    if output.exists() and not options.force and not output.samefile(path):
        raise _OptionsError(f"{output}: there is such a file already; --force writes over it")
    probes = [concept.probe.file for concept in policy.concepts if concept.probe is not None]
    if probes and output.parent.resolve() != path.parent.resolve():
        raise _OptionsError(
            f"the policy names {probes[0]} beside it: write the new one to {path.parent}"
        )


def _goal(options: argparse.Namespace) -> Budget | Costs:
    """What was asked for. Raises _OptionsError."""
    from imagesafety.calibration.calibrate import Budget, Costs

    pair = (options.cost_false_reject, options.cost_false_accept)
    costs = options.cost, *pair, options.prevalence
    if options.max_false_rejects is not None:
        if any(cost is not None for cost in costs):
            raise _OptionsError("either --max-false-rejects or costs, not both")
        return Budget(options.max_false_rejects, options.confidence)
    if options.prevalence is None or (options.cost is None) == (None in pair):
        raise _OptionsError(
            "say --max-false-rejects, such as 10/10000, or --cost (or both --cost-false-reject and "
            "--cost-false-accept) with --prevalence"
        )
    if options.cost is not None:
        return Costs(1.0, options.cost, options.prevalence)
    return Costs(*pair, options.prevalence)


async def _score(
    options: argparse.Namespace, policy: Policy, service: ServiceAddress
) -> tuple[Target, Gathered]:
    """For which model the policy is to be, and the scores by that."""
    from imagesafety.calibration import scoring
    from imagesafety.calibration.gathered import is_all_benign
    from imagesafety.evaluation.score_cache import default_cache

    target = await scoring.find_target(policy, service, options.model)
    if is_all_benign(options.material, [concept.name for concept in policy.concepts]):
        print(f"{options.material}: has no folders accept and reject, so all of it is harmless")
    cache = options.cache or default_cache()
    return target, await scoring.score(options.material, target.policy, service, cache)


def _calibrate(options: argparse.Namespace) -> None:
    from imagesafety.calibration import report
    from imagesafety.calibration.calibrate import calibrate, occasion_now
    from imagesafety.calibration.written import save, written

    goal, service = _goal(options), service_address(options)
    path, output = find_policy(options.policy), options.output
    policy = load_policy(path)
    _check_output(options, path, policy)
    target, gathered = asyncio.run(_score(options, policy, service))
    print("\n".join(report.material_lines(gathered)))
    occasion = occasion_now(target.policy)
    calibrated = calibrate(target.policy, gathered, goal, occasion, origin=target.origin)
    text = written(policy, calibrated.policy, calibrated.provenance)
    if path.read_text(encoding="utf-8") != policy.text:
        raise _OptionsError(f"{path}: was changed meanwhile; run it again, the scores are kept")
    save(output, text, replacing=options.force or (output.exists() and output.samefile(path)))
    print("", *report.threshold_lines(policy, calibrated, target.origin), sep="\n")
    print("", *report.result_lines(calibrated), sep="\n")
    print("", *report.next_lines(str(output)), sep="\n")
