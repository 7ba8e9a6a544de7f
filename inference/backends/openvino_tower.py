"""The image tower in OpenVINO on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from inference.backends.machine import has_bfloat16
from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec


class OpenVinoTower:
    """Runs an exported file. Not for use from several threads at once."""

    concurrency = 1

    def __init__(self, spec: TowerSpec, file: Path, size: PictureSize, threads: int) -> None:
        """Raises what OpenVINO raises for a file that it can't run."""
        self.spec = spec
        self._size = size
        # What an int8 model leaves in float may be bfloat16 as well, where that is fast.
        low = spec.precision == "bfloat16" or (spec.precision == "int8" and has_bfloat16())
        self._compiled = openvino.Core().compile_model(
            str(file),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,  # all threads on one batch: batches are never run side by side
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
            },
        )
        self._request = self._compiled.create_infer_request()

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        result = self._request.infer({0: self._size.stacked(pictures)}, share_inputs=True)
        return np.array(result[0], np.float32)  # a copy: the next batch is written over it

    def close(self) -> None:
        """Ends its threads."""
        del self._request, self._compiled
