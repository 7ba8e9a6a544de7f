from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.processes import gateway, inference


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What services keep of a test is not for the next run, nor for whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("backends") / "cache"
        patch.setenv("IMAGESAFETY_INFERENCE_CACHE_FOLDER", str(folder))
        yield


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
