from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.processes import gateway, inference


@dataclass(frozen=True)
class Pair:
    """A running gateway and the inference service behind it."""

    gateway: str
    inference: str
    gateway_pid: int
    inference_pid: int


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    # Tests post the same drawings, and mean each of them to be scored.
    with inference() as scoring, gateway(scoring.address, "--repeats", "false") as http:
        yield Pair(http.address, scoring.address, http.process.pid, scoring.process.pid)
