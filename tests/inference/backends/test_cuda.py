"""The CUDA tower, on a machine that has one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from inference.backends.loading import BackendOptions
from inference.model_source import parse_model
from inference.open_clip_encoder import OpenClipEncoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("backend", ["pytorch", "cuda-graphs", "compiled"])
def test_it_agrees_with_the_cpu_in_batches_of_any_size(
    backend: str, tiny: str, views: list[bytes]
) -> None:
    source = parse_model(tiny)
    exact = OpenClipEncoder(tiny, source, device="cpu")
    options = BackendOptions(max_batch=16)
    encoder = OpenClipEncoder(tiny, source, device="cuda", backend=backend, options=options)
    expected = exact.encode_images(views)
    # Larger batches than are prepared, and as many calls at once as the encoder allows.
    sizes = [1, 2, 5, 7, 16, 23, 40] * 4
    batches = [[(7 * size + row) % len(views) for row in range(size)] for size in sizes]
    with ThreadPoolExecutor(encoder.concurrency) as threads:
        results = list(
            threads.map(lambda rows: encoder.encode_images([views[row] for row in rows]), batches)
        )
    for rows, result in zip(batches, results, strict=True):
        assert (result * expected[rows]).sum(1).min() > 0.999
    np.testing.assert_allclose(
        encoder.encode_texts(["a circle"]), exact.encode_texts(["a circle"]), atol=1e-3
    )
    encoder.close()
