"""`imagesafety evaluate SOURCE`: what a policy does to labelled images."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagesafety.bulk import ServiceUnavailableError
from imagesafety.client import ScoringClient
from imagesafety.command.service_options import (
    ServiceOptionsError,
    add_service_options,
    not_reached,
    service_address,
)
from imagesafety.command.subcommands import Commands
from imagesafety.command.table_columns import say_unused_columns
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.progress import progress
from imagesafety.scoring_error import ScoringError

if TYPE_CHECKING:
    from imagesafety.evaluation.collected import Collector
    from imagesafety.evaluation.evaluation import Evaluation
    from imagesafety.evaluation.score_cache import ScoreCache
    from imagesafety.policy import Policy
    from imagesafety.scores import ModelDescription
    from imagesafety.service_address import ServiceAddress


_NEEDED = ("jinja2", "matplotlib", "numpy", "pyarrow", "scipy")
_DESCRIBE_SECONDS = 30.0


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a policy on labelled images",
        description="Scores labelled images with a running inference service and says what the "
        "policy does to them: rates with intervals, what each concept tells apart, thresholds, the "
        "worst mistakes. SOURCE is a folder with the folders accept, reject, or of concepts' names "
        "(not-… for images that do not show it), or a .csv or .parquet file with the columns path, "
        "label (accept or reject) and concepts (true or false). What is scored once is kept: run "
        "it again after an interruption. Exits with 0 if there is a report.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--policy", required=True, help="policy file, or a shipped one's name")
    add_service_options(parser)
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html and .json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="show the pictures of the worst mistakes in the report, blurred until clicked",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FILE", help="where scores are kept (below ~/.cache)"
    )
    parser.add_argument(
        "--overrides",
        type=Path,
        metavar="FILE.csv",
        help="overrides as the admin pages export them; they count before labels",
    )
    parser.add_argument(
        "--prevalence",
        type=_share,
        default=0.0000429,
        help="share of uploads that are to be rejected (0.0000429)",
    )
    parser.add_argument("--confidence", type=_share, default=0.95, help="of all intervals (0.95)")
    parser.set_defaults(run=run)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def run(options: argparse.Namespace) -> int:
    """Evaluates; 2 for what can't be meant, 1 for what failed."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        wanted = ", ".join(missing)
        return _said(f"evaluate needs `pip install 'imagesafety[evaluate]'` ({wanted})", 1)
    from imagesafety.evaluation.material import MaterialError
    from imagesafety.evaluation.score_cache import CacheError
    from imagesafety.evaluation.scored import OtherModelError

    if options.pictures and options.report is None:
        return _said("--pictures needs --report: pictures are shown there", 2)
    if options.report is not None and _is_inside(options.report, options.source):
        reason = "is inside the material, where a report would be taken for images"
        return _said(f"{options.report}: {reason}; name another folder", 2)
    try:
        return _evaluate(options)
    except (PolicyError, MaterialError, ServiceOptionsError) as error:
        return _said(str(error), 2)
    except (OtherModelError, CacheError, OSError) as error:
        return _said(str(error), 1)
    except (ServiceUnavailableError, ScoringError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        print(not_reached(options), file=sys.stderr)
        return 1


def _is_inside(report: Path, source: Path) -> bool:
    return source.is_dir() and report.resolve().is_relative_to(source.resolve())


def _said(message: str, code: int) -> int:
    print(f"imagesafety: {message}", file=sys.stderr)
    return code


def _evaluate(options: argparse.Namespace) -> int:
    from imagesafety.evaluation.collected import Collector
    from imagesafety.evaluation.evaluation import Subject, evaluation
    from imagesafety.evaluation.material import read_material, shown
    from imagesafety.evaluation.override_labels import read_override_labels
    from imagesafety.evaluation.score_cache import ScoreCache, default_cache
    from imagesafety.evaluation.score_section import section_for

    path = find_policy(options.policy)
    policy, service = load_policy(path), service_address(options)
    overrides = read_override_labels(options.overrides) if options.overrides else {}
    names = [concept.name for concept in policy.concepts]
    read_material(options.source, names)  # says what is wrong before anything is asked of others
    say_unused_columns(options.source, names)
    if options.report is not None:
        options.report.mkdir(parents=True, exist_ok=True)
    with (
        ScoreCache(options.cache or default_cache()) as cache,
        # Beside the cache: where that has room, the columns have, and it is no memory.
        Collector(cache.path.parent, policy, overrides) as collector,
    ):
        model = asyncio.run(_score(options.source, policy, service, cache, collector))
        subject = Subject(
            shown(options.source),
            str(path),
            policy,
            model.model,
            options.confidence,
            options.prevalence,
        )
        found = evaluation(subject, collector, section_for(cache, policy, model))
        return _report(options, found, collector)


def _report(options: argparse.Namespace, found: Evaluation, collector: Collector) -> int:
    """Prints and writes what was found."""
    from imagesafety.evaluation.report_content import report_content
    from imagesafety.evaluation.report_files import write_report
    from imagesafety.evaluation.report_text import problem_lines, report_lines

    if not found.counts.images:
        print("\n".join(problem_lines(found)), file=sys.stderr)
        return _said("no image could be scored", 1)
    if options.report is not None:
        write_report(options.report, found, collector.problems, pictures=options.pictures)
    if options.json:
        print(json.dumps(report_content(found)))
    else:
        print("\n".join(report_lines(found)))
    if options.report is not None:
        print(f"wrote {options.report / 'report.html'}", file=sys.stderr)
    return 0


async def _score(
    source: Path, policy: Policy, service: ServiceAddress, cache: ScoreCache, collector: Collector
) -> ModelDescription:
    """Scores everything of the source; the model that did."""
    from imagesafety.evaluation.material import count_material, read_material
    from imagesafety.evaluation.score_section import section_for
    from imagesafety.evaluation.scored import score_material

    async with ScoringClient(service.target, service.tls) as client:
        model = await client.describe_model(timeout=_DESCRIBE_SECONDS)
    section_for(cache, policy, model)  # refuses another model before files are counted
    names = [concept.name for concept in policy.concepts]
    total = await asyncio.to_thread(count_material, source, names)
    with progress("scoring", total) as bar:
        scoring = score_material(read_material(source, names), policy, service, cache, bar=bar)
        async with contextlib.aclosing(scoring) as results:
            async for scored in results:
                collector.add(scored)
                if scored.problem:
                    bar.note(f"{len(collector.problems)} problems")
    return model
