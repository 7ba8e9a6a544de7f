"""The image tower in ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from inference.backends.lanes import CpuShare, Lanes
from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec

ERRORS_ONLY = 3


class OnnxRuntimeTower:
    """Runs an exported file: a batch that is alone on all threads, others on a share of them."""

    def __init__(self, spec: TowerSpec, file: Path, size: PictureSize, share: CpuShare) -> None:
        """Raises what ONNX Runtime raises for a file that it can't run."""
        self.spec = spec
        self.concurrency = share.lanes
        self._file = file
        self._size = size
        self._share = share
        self._lanes = Lanes()
        self._wide = self._session(share.threads)
        self._input = self._wide.get_inputs()[0].name

    @cached_property
    def _narrow(self) -> onnxruntime.InferenceSession:
        return self._session(self._share.threads_of_lane)

    def _session(self, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait in a loop would take the cores from the decoders between two batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(
            str(self._file), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        pixels = self._size.stacked(pictures)
        with self._lanes.batch() as alone:
            session = self._wide if alone else self._narrow
            (embeddings,) = session.run(None, {self._input: pixels})
        return np.asarray(embeddings, np.float32)

    def prepare(self) -> None:
        """As ImageTower.prepare."""
        if self.concurrency > 1:
            _ = self._narrow

    def close(self) -> None:
        """Ends its threads."""
        del self._wide
        self.__dict__.pop("_narrow", None)
