"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for this run alone, so that nothing is kept for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("backends") / "cache"
        patch.setenv("IMAGESAFETY_INFERENCE_CACHE_FOLDER", str(folder))
        yield
