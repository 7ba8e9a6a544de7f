"""`imagesafety calibrate MATERIAL`: thresholds by what was measured on one's own images."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagesafety.command.calibrate_options import (
    OptionsError,
    add_better_scores,
    add_goals,
    goal_of,
)
from imagesafety.command.service_options import (
    ServiceOptionsError,
    add_service_options,
    not_reached,
    service_address,
)
from imagesafety.command.subcommands import Commands
from imagesafety.command.table_columns import say_unused_columns
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy, parse_policy, policy_text
from imagesafety.service_address import ServiceAddress

if TYPE_CHECKING:
    from imagesafety.calibration.gathered import Gathered
    from imagesafety.calibration.labelled_gathering import GatheredLabels
    from imagesafety.calibration.prompt_columns import Asked
    from imagesafety.calibration.scoring import Target


_NO_EMBEDDINGS = (
    "run it on the machine of inference, or show a certificate that it verifies (--certificate)"
)
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
    parser.add_argument(
        "--overrides",
        type=Path,
        metavar="FILE.csv",
        help="overrides as the admin pages export them; they count before labels",
    )
    add_service_options(parser)
    add_goals(parser)
    add_better_scores(parser)
    parser.set_defaults(run=run)


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
    except (PolicyError, ServiceOptionsError, OptionsError, MaterialError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    except (CalibrationError, OtherModelError, ProvenanceError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    except (ScoringError, ServiceUnavailableError) as error:
        print(f"imagesafety: no scores: {error}", file=sys.stderr)
        denied = isinstance(error, ScoringError) and error.reason == "EMBEDDINGS_NOT_ALLOWED"
        print(_NO_EMBEDDINGS if denied else not_reached(options), file=sys.stderr)
        return 1
    except (CacheError, OSError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 1
    return 0


def _check_output(options: argparse.Namespace, path: Path, policy: Policy) -> None:
    """Finds out before the work whether its result may be written. Raises OptionsError."""
    output: Path = options.output
    if not output.parent.is_dir():
        raise OptionsError(f"{output.parent}: there is no such folder to write to")
    if output.is_dir():
        raise OptionsError(f"{output}: is a folder")
    if output.exists() and not options.force and not output.samefile(path):
        raise OptionsError(f"{output}: there is such a file already; --force writes over it")
    probes = [concept.probe.file for concept in policy.concepts if concept.probe is not None]
    if probes and output.parent.resolve() != path.parent.resolve():
        raise OptionsError(
            f"the policy names {probes[0]} beside it: write the new one to {path.parent}"
        )


@dataclass(frozen=True)
class _Scored:
    """What is calibrated: `base`, whose text is that of `source`, and the files that it names."""

    target: Target
    source: Policy
    base: Policy
    gathered: Gathered
    probes: Mapping[str, bytes]


async def _score(
    options: argparse.Namespace,
    policy: Policy,
    service: ServiceAddress,
    overrides: Mapping[str, bool],
) -> _Scored:
    """For which model the policy is to be, and the scores by that."""
    from imagesafety.calibration import better_run, scoring
    from imagesafety.calibration.gathered import is_all_benign
    from imagesafety.evaluation.material import read_material
    from imagesafety.evaluation.score_cache import default_cache

    names = [concept.name for concept in policy.concepts]
    all_benign = is_all_benign(options.material, names)
    read_material(options.material, names)  # says what is wrong before anything is asked of others
    say_unused_columns(options.material, names)
    target = await scoring.find_target(policy, service, options.model)
    if all_benign:
        print(f"{options.material}: has no folders accept and reject, so all of it is harmless")
    cache = options.cache or default_cache()
    if options.better_scores:
        source = better_run.Source(options.material, overrides)
        neutral = options.neutral or better_run.NEUTRAL
        asked, found = await better_run.score_for_better(
            source, target.policy, neutral, service, cache
        )
        return _with_better(policy, target, asked, found)
    gathered = await scoring.score(options.material, target.policy, service, cache, overrides)
    return _Scored(target, policy, target.policy, gathered, {})


def _with_better(policy: Policy, target: Target, asked: Asked, found: GatheredLabels) -> _Scored:
    from imagesafety.calibration import better_report, better_run

    today = datetime.now(UTC).date().isoformat()
    better, gathered = better_run.look_for_better(target, asked, found, today)
    print("", *better_report.comparison_lines(better), sep="\n")
    print("", *better_report.kept_lines(better), "", sep="\n")
    edited = parse_policy(better.text) if better.is_any else policy
    return _Scored(target, edited, better.policy, gathered, better.probes)


def _overrides(options: argparse.Namespace) -> Mapping[str, bool]:
    """Raises MaterialError for a list that can't be used."""
    from imagesafety.evaluation.override_labels import read_override_labels

    return read_override_labels(options.overrides) if options.overrides else {}


def _calibrate(options: argparse.Namespace) -> None:
    from imagesafety.calibration import report
    from imagesafety.calibration.calibrate import calibrate, occasion_now
    from imagesafety.calibration.written import save, with_line_ends_of, written

    goal, service = goal_of(options), service_address(options)
    if options.neutral and not options.better_scores:
        raise OptionsError("--neutral is for --better-scores")
    overrides = _overrides(options)
    path, output = find_policy(options.policy), options.output
    policy = load_policy(path)
    _check_output(options, path, policy)
    scored = asyncio.run(_score(options, policy, service, overrides))
    print("\n".join(report.material_lines(scored.gathered)))
    base, origin = scored.base, scored.target.origin
    occasion = occasion_now(base, scored.target.max_frames)
    calibrated = calibrate(base, scored.gathered, goal, occasion, origin=origin)
    text = written(scored.source, calibrated.policy, calibrated.provenance)
    if policy_text(path) != policy.text:
        raise OptionsError(f"{path}: was changed meanwhile; run it again, the scores are kept")
    for name, data in scored.probes.items():  # before the policy that names them
        save(output.parent / name, data.decode(), replacing=True)
    text = with_line_ends_of(path, text)
    save(output, text, replacing=options.force or (output.exists() and output.samefile(path)))
    print("", *report.threshold_lines(base, calibrated, origin), sep="\n")
    print("", *report.result_lines(calibrated), sep="\n")
    print("", *report.next_lines(str(output)), sep="\n")
