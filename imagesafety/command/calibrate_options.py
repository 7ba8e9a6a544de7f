"""What can be said to `imagesafety calibrate` of its goal, and of better scores."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagesafety.calibration.calibrate import Budget, Costs


class OptionsError(Exception):
    """Options that don't go together, or files that are not to be written."""


def add_goals(parser: argparse.ArgumentParser) -> None:
    """Adds what is to be reached."""
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
    budget.add_argument(
        "--balance",
        choices=("policy", "equal"),
        default="policy",
        help="policy: thresholds that fewer harmless images reach than others stay the rarer ones, "
        "in proportion; equal: all concepts get equally rare, as they do anyway where no harmless "
        "image reaches one of the thresholds (policy)",
    )
    trade = parser.add_argument_group("by what mistakes cost, with images of both kinds")
    trade.add_argument("--cost", type=_cost, help="of a false accept, in false rejects")
    trade.add_argument("--cost-false-reject", type=_cost, metavar="COST")
    trade.add_argument("--cost-false-accept", type=_cost, metavar="COST")
    trade.add_argument(
        "--prevalence", type=_share, metavar="SHARE", help="of uploads that are to be rejected"
    )


def add_better_scores(parser: argparse.ArgumentParser) -> None:
    """Adds what better scores need."""
    better = parser.add_argument_group(
        "with better scores, for material that labels concepts as well"
    )
    better.add_argument(
        "--better-scores",
        action="store_true",
        help="try weights for prompts, contrast against neutral prompts and trained probes; what "
        "wins on images held out is kept",
    )
    better.add_argument(
        "--neutral",
        action="append",
        metavar="PROMPT",
        help="a prompt that fits any picture; may be repeated (a picture, a photo)",
    )


def goal_of(options: argparse.Namespace) -> Budget | Costs:
    """What was asked for. Raises OptionsError."""
    from imagesafety.calibration.calibrate import Budget, Costs

    pair = (options.cost_false_reject, options.cost_false_accept)
    costs = options.cost, *pair, options.prevalence
    if options.max_false_rejects is not None:
        if any(cost is not None for cost in costs):
            raise OptionsError("either --max-false-rejects or costs, not both")
        keeps = options.balance == "policy"
        return Budget(options.max_false_rejects, options.confidence, keeps)
    if options.cost is not None and pair != (None, None):
        raise OptionsError("either --cost or --cost-false-reject and --cost-false-accept, not both")
    if options.prevalence is None or (options.cost is None) == (None in pair):
        raise OptionsError(
            "say --max-false-rejects, such as 10/10000, or --cost (or both --cost-false-reject and "
            "--cost-false-accept) with --prevalence"
        )
    if options.cost is not None:
        return Costs(1.0, options.cost, options.prevalence)
    return Costs(*pair, options.prevalence)


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
