"""The evasion benchmark runs, and what it says can be meant: no rates are held against anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imagesafety.evaluation.proportion import Proportion

ROOT = Path(__file__).parents[2]


def test_hidden_pictures_go_through_the_real_service_and_are_counted() -> None:
    flags = [
        "--pictures",
        "3",
        "--seed",
        "5",
        "--transforms",
        "plain",
        "collage, 1 of 4",
        "turned by EXIF",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.evasion", *flags],
        capture_output=True, text=True, timeout=280, cwd=ROOT,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    *tables, last = ended.stdout.splitlines()
    assert sum(line.startswith("| plain picture |") for line in tables) == 2
    result = json.loads(last)
    assert (result["benchmark"], result["pictures"], result["seed"]) == ("evasion", 3, 5)
    plain, collage, turned = result["rows"]
    assert [plain["transform"], turned["transform"]] == ["plain picture", "turned by EXIF"]
    for detail in ("as it is", "tiles 2", "tiles 3"):
        assert plain["detection"][detail]["rejected"] == 3
        assert turned["detection"][detail]["pictures"] == 3
    assert plain["false_rejects"]["as it is"]["rejected"] == 0
    # What tiles see is seen beside the whole: they never find less.
    found = [
        collage["detection"][detail]["rejected"] for detail in ("as it is", "tiles 2", "tiles 3")
    ]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("rejected", "pictures", "low", "high"),
    [(0, 20, 0.0, 0.1684), (20, 20, 0.8316, 1.0), (5, 50, 0.0333, 0.2181)],
)
def test_the_interval_is_that_of_clopper_and_pearson(
    rejected: int, pictures: int, low: float, high: float
) -> None:
    interval = Proportion.of(rejected, pictures).interval
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
