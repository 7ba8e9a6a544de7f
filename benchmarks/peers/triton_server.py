"""Triton through pytriton: `python -m benchmarks.peers.triton_server MODEL GRPC HTTP REQUESTS`.

GRPC and HTTP are ports. First writes the gRPC messages of the benchmark's files into the folder
REQUESTS, so that the client needs nothing of Triton's and spends nothing on making them.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from benchmarks.peers.clip import Clip
from benchmarks.serving.material import CONCEPTS, LARGE, SMALL, pictures, triton_request_path

MODEL = "clip"
MAX_BATCH = 16
QUEUE_MICROSECONDS = 0  # while the model is busy, requests gather by themselves
THREADS = 2


def write_requests(folder: Path) -> None:
    """A ModelInferRequest for each file."""
    for kind in (SMALL, LARGE):
        for number, data in enumerate(pictures(kind)):
            content = serialize_byte_tensor(np.array([[data]], dtype=np.object_))
            request = service_pb2.ModelInferRequest(model_name=MODEL)
            request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
            request.raw_input_contents.append(content.item())
            triton_request_path(folder, kind, number).write_bytes(request.SerializeToString())


def serve(model: str, grpc_port: int, http_port: int) -> None:
    """Serves until SIGTERM."""
    clip = Clip(model, THREADS)
    decoders = ThreadPoolExecutor(THREADS)

    @batch  # type: ignore[untyped-decorator]
    def infer(image: Any) -> dict[str, Any]:
        pixels = list(decoders.map(clip.pixels, image[:, 0]))
        return {"similarities": clip.similarities(pixels).numpy()}

    clip.similarities([clip.pixels(data) for data in pictures(SMALL)[:MAX_BATCH]])
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        http_address="127.0.0.1",
        http_port=http_port,
        allow_metrics=False,
        exit_timeout_secs=5,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="similarities", dtype=np.float32, shape=(len(CONCEPTS),))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=QUEUE_MICROSECONDS),
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    write_requests(Path(sys.argv[4]))
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
