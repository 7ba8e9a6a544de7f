"""The image tower in ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec

ERRORS_ONLY = 3


class OnnxRuntimeTower:
    """Runs an exported file. Not for use from several threads at once."""

    concurrency = 1

    def __init__(self, spec: TowerSpec, file: Path, size: PictureSize, threads: int) -> None:
        """Raises what ONNX Runtime raises for a file that it can't run."""
        self.spec = spec
        self._size = size
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait in a loop would take the cores from the decoders between two batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        pixels = self._size.stacked(pictures)
        (embeddings,) = self._session.run(None, {self._input: pixels})
        return np.asarray(embeddings, np.float32)

    def close(self) -> None:
        """Ends its threads."""
        del self._session
