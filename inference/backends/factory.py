"""Builds image towers, and the model files that some of them run."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

from inference.backends.cache import BackendCache, ModelFileName
from inference.backends.calibration import Calibration
from inference.backends.cuda_tower import CudaTower
from inference.backends.lanes import CpuShare
from inference.backends.machine import versions
from inference.backends.pytorch_tower import ImageGraph, PyTorchTower
from inference.backends.tower import FROM_FILES, ImageTower, PictureSize, Precision, TowerSpec

_FORMAT = 1  # of what is kept in the cache


def pytorch_tower(
    spec: TowerSpec, graph: ImageGraph, size: PictureSize, share: CpuShare, max_batch: int
) -> ImageTower:
    """A tower that PyTorch runs; `graph` is in float32, and shared only by a CPU's float32."""
    if spec.device == "cuda":
        return CudaTower(spec, graph, size, max_batch)
    return PyTorchTower(spec, graph, size, share)


class TowerFactory:
    """Builds towers of one model; while it is open, files are made in its workspace."""

    def __init__(
        self,
        graph: ImageGraph,
        size: PictureSize,
        weights_digest: str,
        *,
        calibration: Calibration,
        cache: BackendCache,
        share: CpuShare,
        max_batch: int,
        workspace: Path,
    ) -> None:
        """`graph` is in float32 on the CPU."""
        self._graph = graph
        self._size = size
        self._weights = weights_digest.removeprefix("sha256:")
        self._calibration = calibration
        self._cache = cache
        self.share = share
        self._max_batch = max_batch
        self._workspace = workspace
        self._files: dict[ModelFileName, Path] = {}

    @cached_property
    def pictures(self) -> list[bytes]:
        """The calibration pictures. Raises ModelError."""
        return self._calibration.pictures(self._size)

    @cached_property
    def key(self) -> str:
        """A digest of all that exported models depend on. Raises ModelError."""
        facts = {
            "format": _FORMAT,
            "weights": self._weights,
            # Weights don't tell the activation, nor how pictures are normalised.
            "graph": repr(self._graph),
            "normalisation": [self._graph.mean.tolist(), self._graph.std.tolist()],
            "calibration": self._calibration.digest(self._size),
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def build(self, spec: TowerSpec) -> ImageTower:
        """Makes a tower. Raises what the backend raises for a model that it can't run."""
        match spec.backend:
            case "onnxruntime":
                from inference.backends.onnxruntime_tower import OnnxRuntimeTower

                file = self._file(spec.precision)
                return OnnxRuntimeTower(spec, file, self._size, self.share)
            case "openvino":
                from inference.backends.openvino_tower import OpenVinoTower

                file = self._file(spec.precision)
                return OpenVinoTower(spec, file, self._size, self.share)
            case _:
                return pytorch_tower(spec, self._graph, self._size, self.share, self._max_batch)

    def made_anew(self, spec: TowerSpec) -> bool:
        """Whether the file of a tower that was built did not come from the cache."""
        return self._file(spec.precision).parent == self._workspace

    def keep(self, spec: TowerSpec) -> None:
        """Keeps the file that a tower was made from for the next start."""
        if spec.backend in FROM_FILES:
            name = self._name(spec.precision)
            self._files[name] = self._cache.keep_model(name, self._file(spec.precision))

    def _name(self, precision: Precision) -> ModelFileName:
        # OpenVINO makes bfloat16 of the float32 file by itself.
        kind = "int8" if precision == "int8" else "float32"
        return ModelFileName(self._weights, self.key, kind)

    def _file(self, precision: Precision) -> Path:
        name = self._name(precision)
        if name not in self._files:
            self._files[name] = self._cache.model(name) or self._made(name, precision)
        return self._files[name]

    def _made(self, name: ModelFileName, precision: Precision) -> Path:
        path = self._workspace / f"{name.stem}.onnx"
        # Imported late: their packages need not be there for other backends.
        if precision == "int8":
            from inference.backends.quantisation import quantise

            quantise(self._file("float32"), path, self.pictures, self._size)
        else:
            from inference.backends.onnx_export import export_onnx

            export_onnx(self._graph, self._size, path)
        return path
