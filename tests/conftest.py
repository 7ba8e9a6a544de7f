"""What holds for all tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What services keep of a test is not for the next run, nor for whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("backends") / "cache"
        patch.setenv("IMAGESAFETY_INFERENCE_CACHE_FOLDER", str(folder))
        yield
