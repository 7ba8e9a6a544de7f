"""Every backend computes what PyTorch does in float32, for batches of any size."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.backends import candidates, loading
from inference.backends.cache import BackendCache
from inference.backends.lanes import CpuShare
from inference.backends.loading import BackendOptions
from inference.model_source import ModelError, parse_model
from inference.open_clip_encoder import OpenClipEncoder
from tests.inference.backends.conftest import SIDE

# (backend, precision), the least cosine, and how far a picture's row may depend on its batch.
WAYS = [
    ("pytorch", "float32", 0.99999, 1e-5),
    ("pytorch", "bfloat16", 0.999, 1e-2),
    ("pytorch", "float16", 0.999, 1e-2),
    ("onnxruntime", "float32", 0.99999, 1e-5),
    ("onnxruntime", "int8", 0.99, 1e-5),
    ("openvino", "float32", 0.99999, 1e-5),
    ("openvino", "bfloat16", 0.999, 1e-2),
    ("openvino", "int8", 0.99, 1e-2),
]


def load(
    model: str, backend: str, precision: str = "auto", folder: Path | None = None, **options: object
) -> OpenClipEncoder:
    return OpenClipEncoder(
        model,
        parse_model(model),
        device="cpu",
        backend=backend,
        precision=precision,
        share=CpuShare(threads=2, lanes=2),
        options=BackendOptions(cache=BackendCache(folder), **options),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def exact(tiny: str) -> OpenClipEncoder:
    return load(tiny, "pytorch", "float32")


@pytest.mark.parametrize(
    ("backend", "precision", "least", "spread"), WAYS, ids=[f"{w[0]}-{w[1]}" for w in WAYS]
)
def test_a_backend_agrees_with_the_reference(
    backend: str,
    precision: str,
    least: float,
    spread: float,
    tiny: str,
    exact: OpenClipEncoder,
    views: list[bytes],
) -> None:
    encoder = load(tiny, backend, precision)
    assert encoder.description.backend == f"{backend}-cpu-{precision}"
    assert encoder.description.weights_digest == exact.description.weights_digest
    assert encoder.concurrency == 2
    together = encoder.encode_images(views)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert (together * exact.encode_images(views)).sum(1).min() > least
    for size in (1, 2, 5):
        np.testing.assert_allclose(
            encoder.encode_images(views[:size]), together[:size], atol=spread
        )
    later = encoder.encode_images([memoryview(view) for view in reversed(views)])
    np.testing.assert_allclose(later[::-1], together, atol=spread)
    # What it was made from is gone by now, as there is no cache.
    with ThreadPoolExecutor(2) as threads:
        for side_by_side in threads.map(encoder.encode_images, [views] * 6):
            np.testing.assert_allclose(side_by_side, together, atol=spread)
    texts = ["a circle", "something red"]
    np.testing.assert_allclose(encoder.encode_texts(texts), exact.encode_texts(texts), atol=1e-6)
    encoder.close()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_other_architectures_go_too(backend: str) -> None:
    """The demo model is a ResNet: convolutions, and other pictures than squares of 224."""
    rng = np.random.default_rng(3)
    views = [rng.integers(0, 256, (64, 64, 3), np.uint8).tobytes() for _ in range(5)]
    expected = load("demo", "pytorch").encode_images(views)
    encoder = load("demo", backend)
    assert encoder.description.backend == f"{backend}-cpu-float32", "exact, where it is not said"
    np.testing.assert_allclose(encoder.encode_images(views), expected, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_images(views[:1]), expected[:1], atol=1e-4)


def test_a_picture_of_another_size_is_an_error(exact: OpenClipEncoder) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        exact.encode_images([bytes(SIDE)])


def test_what_is_not_finite_comes_back(tiny: str, tmp_path: Path, views: list[bytes]) -> None:
    config, _, weights = tiny.partition("@")
    state = torch.load(weights, weights_only=True)
    state["visual.proj"] = torch.full_like(state["visual.proj"], torch.nan)
    torch.save(state, tmp_path / "nan.pt")
    encoder = load(f"{config}@{tmp_path}/nan.pt", "pytorch")
    assert np.isnan(encoder.encode_images(views)).all()


@pytest.mark.parametrize(
    ("backend", "precision", "reason"),
    [
        ("openvino", "float16", "backend openvino has no precision float16"),
        ("pytorch", "int8", "backend pytorch has no precision int8"),
        ("cuda-graphs", "auto", "needs a CUDA device"),
    ],
)
def test_what_cannot_be_had_is_refused(
    backend: str, precision: str, reason: str, tiny: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        load(tiny, backend, precision)


def test_a_package_that_is_not_installed(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "installed", lambda package: package != "openvino")
    with pytest.raises(ModelError, match="the package openvino is not installed"):
        load(tiny, "openvino")
    wish = candidates.Wish.of("auto", "auto")
    backends = {spec.backend for spec in candidates.candidates(wish, "cpu", "bfloat16")}
    assert backends == {"pytorch", "onnxruntime"}


def test_the_demo_model_is_fast_enough_as_it_is(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FAST_ENOUGH", 10.0)  # a busy machine
    assert load("demo", "auto", "auto", cache_folder).description.backend == "pytorch-cpu-float32"
    (kept,) = cache_folder.iterdir()
    assert kept.name.startswith("choice-"), "nothing is exported"
    # The next start looks at nothing: on a machine that is busy then, that would take a second.
    monkeypatch.setattr(loading, "FAST_ENOUGH", 0.0)
    assert load("demo", "auto", "auto", cache_folder).description.backend == "pytorch-cpu-float32"


def test_calibration_pictures_that_are_not_needed_may_be_wrong(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FAST_ENOUGH", 10.0)
    for _ in range(2):
        encoder = load("demo", "auto", "auto", cache_folder, calibration_folder=tmp_path / "none")
        assert encoder.description.backend == "pytorch-cpu-float32"


def test_an_int8_model_is_made_once(
    tiny: str, cache_folder: Path, views: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load(tiny, "openvino", "int8", cache_folder).encode_images(views)
    files = sorted(cache_folder.iterdir())
    assert [path.suffix for path in files] == [".onnx"]
    monkeypatch.setattr(torch.onnx, "export", None)
    again = load(tiny, "openvino", "int8", cache_folder).encode_images(views)
    np.testing.assert_array_equal(made, again)


def test_it_is_made_anew_for_other_pictures(tiny: str, cache_folder: Path, tmp_path: Path) -> None:
    load(tiny, "onnxruntime", "int8", cache_folder)
    before = list(cache_folder.iterdir())
    from PIL import Image

    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (90, 60), "red").save(own / "red.png")
    (own / "broken.jpg").write_bytes(b"no picture")
    load(tiny, "onnxruntime", "int8", cache_folder, calibration_folder=own)
    after = list(cache_folder.iterdir())
    assert len(after) == 1
    assert before != after


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_calibration_folder_without_pictures(
    content: bytes | None, tiny: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ModelError, match="calibration folder"):
        load(tiny, "onnxruntime", "int8", calibration_folder=tmp_path)


def test_without_its_folder_a_backend_that_needs_files_is_an_error(
    tiny: str, cache_folder: Path
) -> None:
    cache_folder.write_text("")  # no folder
    with pytest.raises(ModelError, match="backend openvino needs the cache folder"):
        load(tiny, "openvino", "auto", cache_folder)


class TestAuto:
    """The choice among candidates; which one wins is the machine's business."""

    @pytest.fixture(autouse=True)
    def _no_short_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "FAST_ENOUGH", 0.0)

    def test_it_measures_once(
        self, tiny: str, cache_folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "inference")
        first = load(tiny, "auto", "auto", cache_folder).description.backend
        (table,) = [r.getMessage() for r in caplog.records if "images/s" in r.getMessage()]
        names = [line.split()[0] for line in table.splitlines()[2:]]
        assert {"pytorch-cpu-float32", "onnxruntime-cpu-int8", "openvino-cpu-int8"} <= set(names)
        assert table.count("chosen") == 1
        (report,) = cache_folder.glob("choice-*.json")
        assert json.loads(report.read_text())["chosen"] == first
        caplog.clear()
        assert load(tiny, "auto", "auto", cache_folder).description.backend == first
        assert "as chosen at an earlier start" in caplog.text
        assert not list(cache_folder.glob("making-*"))
        assert not list(cache_folder.glob("unfinished-*"))

    def test_a_damaged_cache_is_made_anew(
        self, tiny: str, cache_folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        load(tiny, "auto", "int8", cache_folder)
        for path in cache_folder.iterdir():
            path.write_bytes(b"damaged")
        caplog.clear()
        backend = load(tiny, "auto", "int8", cache_folder).description.backend
        assert backend.endswith("-int8")
        assert caplog.text.count("damaged") + caplog.text.count("left out") >= 2
        caplog.clear()
        assert load(tiny, "auto", "int8", cache_folder).description.backend == backend
        assert caplog.text == ""

    def test_when_the_time_is_up_the_reference_is_taken(
        self, tiny: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "inference")
        encoder = load(tiny, "auto", seconds=1e-9)
        assert encoder.description.backend == "pytorch-cpu-float32"
        assert "not tried: no time left" in caplog.text

    def test_a_backend_that_fails_is_not_chosen(
        self, tiny: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "inference")
        monkeypatch.setattr(torch.onnx, "export", None)
        encoder = load(tiny, "auto")
        assert encoder.description.backend.startswith("pytorch-cpu-")
        assert "fails: " in caplog.text

    def test_without_its_folder_nothing_is_exported(
        self, tiny: str, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported"))
        cache_folder.write_text("")  # no folder
        encoder = load(tiny, "auto", "auto", cache_folder)
        assert encoder.description.backend.startswith("pytorch-cpu-")

    def test_after_two_starts_that_were_killed_nothing_is_tried(
        self, tiny: str, cache_folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("inference.backends.cache.BackendCache.end", lambda *_: None)
                load(tiny, "auto", "auto", cache_folder)
            for path in cache_folder.glob("choice-*"):
                path.unlink()
        assert load(tiny, "auto", "auto", cache_folder).description.backend == "pytorch-cpu-float32"
        assert "cut off 2 times" in caplog.text


def test_a_choice_is_cut_off_by_an_error_too(tiny: str, cache_folder: Path) -> None:
    """A calibration folder that is wrong is told at each start, not at the first two."""
    for _ in range(3):
        with pytest.raises(ModelError, match="no JPEG"):
            load(tiny, "auto", "int8", cache_folder, calibration_folder=cache_folder.parent)
