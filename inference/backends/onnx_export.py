"""Writes the image tower as an ONNX file, for the backends that read one."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from inference.backends.pytorch_tower import ImageGraph
from inference.backends.tower import PictureSize

INPUT, OUTPUT = "pixels", "embeddings"


def export_onnx(graph: ImageGraph, size: PictureSize, path: Path) -> None:
    """Exports a float32 graph for batches of any size. Raises what PyTorch's exporter raises.

    A model of more than 2 GiB doesn't fit into one file, and fails here.
    """
    # Not 1, which the exporter would take for a constant.
    example = torch.zeros(3, size.height, size.width, 3, dtype=torch.uint8)
    # The fused attention of PyTorch has no ONNX operator, and knows no dynamic batch.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _silence(), torch.no_grad():
            torch.onnx.export(
                graph.eval(),
                (example,),
                str(path),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints and warns of its own insides."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
