"""Writes an evaluation's files: report.html, report.json, and problems.csv if there are any."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from imagesafety.evaluation.concept_figures import Basis, ConceptFigures
from imagesafety.evaluation.evaluation import Evaluation
from imagesafety.evaluation.material import shown
from imagesafety.evaluation.mistakes import Mistake
from imagesafety.evaluation.plots import precision_recall_plot, roc_plot
from imagesafety.evaluation.problems import Problem
from imagesafety.evaluation.proportion import Proportion
from imagesafety.evaluation.report_content import report_content
from imagesafety.evaluation.whole_file import whole_file
from imagesafety.evaluation.wording import (
    expected_note,
    expected_words,
    percent,
    percents,
    responsible,
    rule_words,
    set_percent,
    where,
)

MOST_PICTURE_BYTES = 4 * 1024 * 1024
_SPREADSHEET_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")  # what it would take for a formula


def write_report(
    folder: Path, evaluation: Evaluation, problems: Iterable[Problem], *, pictures: bool
) -> None:
    """Writes the files, each whole or not at all. `pictures` shows those of the mistakes.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = report_content(evaluation)
    page = html_report(evaluation, content, pictures=pictures)
    if evaluation.problem_counts:
        _write_problems(folder / "problems.csv", problems)
    else:
        (folder / "problems.csv").unlink(missing_ok=True)  # of an earlier report
    with whole_file(folder / "report.json") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    with whole_file(folder / "report.html") as file:
        file.write(page)


def html_report(evaluation: Evaluation, content: dict[str, object], *, pictures: bool) -> str:
    """The page: it needs nothing beside itself, and no network."""
    environment = Environment(
        loader=PackageLoader("imagesafety.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["responsible"] = responsible
    environment.globals.update(
        percent=percent,
        percents=percents,
        set_percent=set_percent,
        counts=_counts,
        expected_words=expected_words,
        expected_note=expected_note,
        rule_words=rule_words,
        where=where,
        shown=shown,
    )
    return environment.get_template("report.html").render(
        name=Path(evaluation.subject.policy_file).name,
        content=content,
        images_line=_images_line(evaluation),
        confidence=set_percent(evaluation.subject.confidence),
        policy=evaluation.policy,
        bases=list(_bases(evaluation)),
        found_mistakes=evaluation.mistakes,
        pictures=dict(_pictures(evaluation)) if pictures else {},
    )


@dataclass(frozen=True)
class _Plotted:
    """A concept's figures with its plots, which are data: URLs."""

    figures: ConceptFigures
    anchor: str
    roc: str = ""
    precision_recall: str = ""


def _bases(evaluation: Evaluation) -> Iterator[tuple[Basis, list[_Plotted]]]:
    for basis in Basis:
        found = [
            _plotted(figures, f"{basis.name.lower()}-{number}")
            for number, figures in enumerate(evaluation.concepts)
            if figures.basis is basis
        ]
        if found:
            yield basis, found


def _plotted(figures: ConceptFigures, anchor: str) -> _Plotted:
    if figures.curve is None:
        return _Plotted(figures, anchor)
    return _Plotted(
        figures,
        anchor,
        _data_url("image/svg+xml", roc_plot(figures.curve).encode()),
        _data_url("image/svg+xml", precision_recall_plot(figures.curve).encode()),
    )


def _pictures(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """The files of the mistakes as data: URLs, those that a page can show."""
    mistakes = evaluation.mistakes
    for mistake in (*mistakes.false_rejects, *mistakes.false_accepts):
        if mistake.media_type.startswith("image/") and (data := _bytes_of(mistake)):
            yield mistake.sha256, _data_url(mistake.media_type, data)


def _bytes_of(mistake: Mistake) -> bytes:
    """The bytes that were evaluated; none if they are too many, or not there any more."""
    try:
        if mistake.path.stat().st_size > MOST_PICTURE_BYTES:
            return b""
        data = mistake.path.read_bytes()
    except OSError:
        return b""
    return data if hashlib.sha256(data).hexdigest() == mistake.sha256 else b""


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _counts(share: Proportion) -> str:
    if not share.total:
        return "no images"
    return f"{share.count} of {share.total}; {percents(share.interval)}"


def _images_line(evaluation: Evaluation) -> str:
    counts = evaluation.counts
    numbers = (
        ("files", counts.files),
        ("copies of others", counts.copies),
        ("without scores", counts.problems),
        ("images to accept", counts.accept),
        ("to reject", counts.reject),
        ("without such a label", counts.unlabelled),
        ("left out because their labels contradict each other", counts.left_out),
        ("looked at only in part", counts.partial),
    )
    return f"{'; '.join(f'{what}: {number}' for what, number in numbers if number)}."


def _write_problems(path: Path, problems: Iterable[Problem]) -> None:
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "path", "sha256", "label", "reason"))
        for problem in problems:
            cells = (problem.path, problem.sha256, problem.label, problem.reason)
            writer.writerow([problem.kind.name.lower(), *map(_harmless, cells)])


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_SPREADSHEET_STARTS) else cell
