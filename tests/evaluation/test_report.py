"""What is written of an evaluation: whole, harmless to open, and without pictures unless asked."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TextIO

import pytest

from imagesafety.evaluation.cached_scores import CachedScores, ViewPlace
from imagesafety.evaluation.collected import Collector
from imagesafety.evaluation.evaluation import Evaluation, Subject, evaluation
from imagesafety.evaluation.material import LabelledFile, Labels
from imagesafety.evaluation.report_content import report_content
from imagesafety.evaluation.report_files import write_report
from imagesafety.evaluation.report_text import report_lines
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.evaluation.whole_file import whole_file
from imagesafety.scores import ModelIdentity
from tests.evaluation.scored_files import POLICY, scored

NASTY = '<script>alert("x")</script>\n=1+1.png'
SUBJECT = Subject("ma<b>terial", "p&q.toml", POLICY, ModelIdentity("demo", "sha256:0", "test"))


def report(
    folder: Path, files: list[ScoredFile], *, pictures: bool = False
) -> tuple[Evaluation, Path]:
    out = folder / "deep" / "report"
    with ScoreCache(folder / "scores") as cache, Collector(folder, POLICY) as collector:
        section = cache.section("demo", "sha256:0", "options")
        for file in files:
            collector.add(file)
            if file.similarities is not None:
                places = (ViewPlace(0, 0.0, (0, 0, 8, 8)),)
                kept = CachedScores(file.similarities, places=places, media_type="image/png")
                section.put(bytes.fromhex(file.sha256), kept)
        found = evaluation(SUBJECT, collector, section)
        write_report(out, found, collector.problems, pictures=pictures)
    return found, out


def some_files() -> list[ScoredFile]:
    return [
        *(scored(f"{n}.png", [[0.01 * n, 0.3]], reject=n > 90, red=n > 50) for n in range(100)),
        scored(NASTY, [[0.9, 0.9]], reject=False, red=False),
        scored("/bad <i>.png", reject=True, reason="UNDECODABLE"),
        scored("-cmd", reject=False, reason="UNSUPPORTED_TYPE"),
    ]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    _, out = report(tmp_path, some_files())
    text = (out / "report.html").read_text()
    page = Page(text)
    assert not {"script", "i", "link", "iframe", "form"} & set(page.tags)
    assert all(re.match(r"data:image/svg\+xml;base64,|#[a-z]+-\d+$", link) for link in page.links)
    assert "url(" not in text
    assert "@import" not in text
    words = "".join(page.words)
    assert "<script>" in words  # as text
    assert "Worst false rejects" in words
    assert "Nearest false accepts" in words
    assert "too few negatives to say: it takes 299572, there are 92" in words


def test_json_is_what_was_found(tmp_path: Path) -> None:
    found, out = report(tmp_path, some_files())
    content = json.loads((out / "report.json").read_text())
    assert {**content, "made": ""} == {
        **json.loads(json.dumps(report_content(found))),
        "made": "",
    }
    assert content["images"]["different"] == 101
    assert content["rates"]["false_rejects"]["count"] == 1
    assert content["rates"]["false_rejects"]["of"] == 92
    [red, red_decision] = [item for item in content["concepts"] if item["concept"] == "red"]
    assert (red["basis"], red["positives"], red["negatives"]) == ("concept", 49, 52)
    assert red["auc_interval"][0] < red["auc"] < red["auc_interval"][1]
    assert red_decision["thresholds"][-1] == {
        "false_reject_rate": 1e-5,
        "threshold": None,
        "missing": "too_few",
        "false_rejects": None,
        "recall": None,
        "negatives_needed": 299572,
    }
    assert max(red["curve"]["recall"]) == 1


def test_rates_that_no_threshold_keeps_are_told(tmp_path: Path) -> None:
    files = [scored(str(n), [[1, 0.3]], reject=n == 0) for n in range(400)]
    found, out = report(tmp_path, files)
    reason = "too many negatives have a similarity of 1, the highest threshold"
    lines = list(report_lines(found))
    assert f"{reason}: 1 %" in [line.strip() for line in lines]
    assert reason in "".join(Page((out / "report.html").read_text()).words)
    content = json.loads((out / "report.json").read_text())
    [red] = [item for item in content["concepts"] if item["concept"] == "red"]
    rows = [(row["threshold"], row["missing"]) for row in red["thresholds"]]
    assert rows[:2] == [(None, "too_similar"), (None, "too_few")]


def test_without_a_false_reject_the_precision_is_only_bounded(tmp_path: Path) -> None:
    files = [scored(f"a{n}", [[0, 0]], reject=False) for n in range(100)]
    files += [scored(f"r{n}", [[1, 1]], reject=True) for n in range(10)]
    found, out = report(tmp_path, files)
    content = json.loads((out / "report.json").read_text())
    expected = content["rates"]["expected_precision"]
    low, high = expected["interval"]
    assert expected == {"prevalence": 0.0000429, "precision": None, "interval": [low, high]}
    assert 0 < low < high == 1
    assert f"expected precision  at least {100 * low:.3g}" in "\n".join(report_lines(found))


def test_every_problem_is_listed(tmp_path: Path) -> None:
    _, out = report(tmp_path, some_files())
    with (out / "problems.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["path"], row["label"]) for row in rows] == [
        ("undecodable", "/bad <i>.png", "reject"),
        ("undecodable", "/material/-cmd", "accept"),
    ]
    report(tmp_path, some_files()[:50])
    assert not (out / "problems.csv").exists()


def test_the_text_says_the_same(tmp_path: Path) -> None:
    found, _ = report(tmp_path, some_files())
    text = "\n".join(report_lines(found))
    assert "103 files (without scores: 2), 101 different images" in text
    assert "false rejects  1.09 % (1 of 92; " in text
    assert "false accepts  100 % (9 of 9; " in text
    assert "reject by only-shape (in shadow): rightly 0 (0), wrongly 1 (0)" in text
    assert "1 of those to reject: no media that can be decoded; the gateway: rejected" in text
    assert "0.001 % (it takes 299572)" in text
    assert "\\n=1+1.png" in text  # a name can't make lines of its own


@pytest.mark.parametrize("asked", [False, True])
def test_pictures_are_shown_only_when_asked_for(tmp_path: Path, asked: bool) -> None:
    (tmp_path / "a.png").write_bytes(b"picture a")
    (tmp_path / "b.png").write_bytes(b"changed since")
    files = []
    for name, data in (("a.png", b"picture a"), ("b.png", b"picture b"), ("gone", b"c")):
        files.append(
            ScoredFile(
                LabelledFile(tmp_path / name, Labels(False)),
                hashlib.sha256(data).hexdigest(),
                scored("x", [[0.9, 0.9]]).similarities,
            )
        )
    _, out = report(tmp_path, files, pictures=asked)
    shown = [link for link in Page((out / "report.html").read_text()).links if "svg" not in link]
    picture = "data:image/png;base64,cGljdHVyZSBh"
    assert [link for link in shown if not link.startswith("#")] == [picture] * asked
    assert "cGljdHVyZSBh" not in (out / "report.json").read_text()


def _break_off(file: TextIO) -> None:
    file.write("half")
    raise KeyboardInterrupt


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as file:
        _break_off(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"
    with whole_file(tmp_path / "a") as file:
        file.write("after")
    assert (tmp_path / "a").read_text() == "after"
