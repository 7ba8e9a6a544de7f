"""The image tower in OpenVINO on a CPU."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import openvino

from inference.backends.lanes import CpuShare, Lanes
from inference.backends.machine import has_bfloat16
from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec


class OpenVinoTower:
    """Runs an exported file: a batch that is alone on all threads, others on a share of them."""

    def __init__(self, spec: TowerSpec, file: Path, size: PictureSize, share: CpuShare) -> None:
        """Raises what OpenVINO raises for a file that it can't run."""
        self.spec = spec
        self.concurrency = share.lanes
        self._core = openvino.Core()
        # Read once: each copy that is compiled shares its weights.
        self._model = self._core.read_model(str(file))
        self._size = size
        self._share = share
        self._lanes = Lanes()
        self._wide = self._requests(1)

    @cached_property
    def _narrow(self) -> queue.SimpleQueue[openvino.InferRequest]:
        return self._requests(self._share.lanes)

    def _requests(self, streams: int) -> queue.SimpleQueue[openvino.InferRequest]:
        # What an int8 model leaves in float may be bfloat16 as well, where that is fast.
        low = self.spec.precision in ("bfloat16", "int8") and has_bfloat16()
        compiled = self._core.compile_model(
            self._model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self._share.threads,
                "NUM_STREAMS": streams,
                "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
            },
        )
        requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        return requests

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        with self._lanes.batch() as alone:
            requests = self._wide if alone else self._narrow
            request = requests.get()
            try:
                result = request.infer({0: self._size.stacked(pictures)}, share_inputs=True)
                return np.array(result[0], np.float32)  # a copy: the next batch is written over it
            finally:
                requests.put(request)

    def prepare(self) -> None:
        """As ImageTower.prepare."""
        if self.concurrency > 1:
            _ = self._narrow

    def close(self) -> None:
        """Ends its threads."""
        del self._wide, self._model
        self.__dict__.pop("_narrow", None)
