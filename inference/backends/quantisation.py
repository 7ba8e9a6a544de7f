"""Makes an int8 model of a float32 ONNX file: static quantisation with calibrated ranges.

Not dynamic quantisation, though it is simpler and no slower in ONNX Runtime: it takes the range
of an activation over the whole batch, so that a picture's scores depend on what else was in it (by
3e-3 with ViT-B-32). Ranges that were calibrated once are the same for each batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from inference.backends.onnx_export import INPUT
from inference.backends.tower import Picture, PictureSize


def quantise(source: Path, target: Path, pictures: Sequence[Picture], size: PictureSize) -> None:
    """Writes an int8 model whose ranges are those that the pictures have in the float32 model.

    Products with constants are quantised, and what stands between them stays in float32. Signed on
    both sides and symmetric: OpenVINO is a fifth faster with that than with unsigned activations,
    ONNX Runtime is as fast. Raises what ONNX Runtime raises.
    """
    logging.disable(logging.WARNING)  # it recommends a step that changes nothing here
    try:
        quantize_static(
            str(source),
            str(target),
            _Reader(pictures, size),
            op_types_to_quantize=_operators(source),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "MatMulConstBOnly": True},
        )
    finally:
        logging.disable(logging.NOTSET)


def _operators(source: Path) -> list[str]:
    """Convolutions are quantised where they are the model, not where one cuts patches."""
    nodes = onnx.load(str(source), load_external_data=False).graph.node
    convolutions = sum(node.op_type == "Conv" for node in nodes)
    return ["MatMul", "Gemm", *(["Conv"] if convolutions > 1 else [])]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pictures: Sequence[Picture], size: PictureSize) -> None:
        # One at a time: the calibrator keeps what each layer made of a batch.
        self._batches: Iterator[Any] = ({INPUT: size.stacked([picture])} for picture in pictures)

    def get_next(self) -> Any:
        return next(self._batches, None)
