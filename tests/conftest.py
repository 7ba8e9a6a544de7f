"""Fixtures of all tests."""

import signal
from collections.abc import Iterator

import pytest

# A shell without job control has what it runs in the background ignore SIGINT, and so would every
# command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for this run alone, so that nothing is kept for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("backends") / "cache"
        patch.setenv("IMAGESAFETY_INFERENCE_CACHE_FOLDER", str(folder))
        yield
