"""The image tower on a CUDA device: the next batch is copied there while one is computed.

A batch goes through one of two slots. Its bytes are laid into pinned memory, which the device
fetches by itself on the slot's own stream; the forward pass waits for that on the device, not here.
All forward passes are on one stream, in the order in which they were started.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from inference.backends.buckets import bucket_for, bucket_sizes, portions
from inference.backends.pytorch_tower import ImageGraph
from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec

SLOTS = 2
_cuda: Any = torch.cuda  # in parts without types
_WARM_UPS = 3  # passes before a capture: libraries choose their kernels and take their memory


class CudaTower:
    """Runs the graph eagerly, compiled, or as CUDA graphs of some batch sizes."""

    concurrency = SLOTS

    def __init__(
        self, spec: TowerSpec, graph: ImageGraph, size: PictureSize, max_batch: int
    ) -> None:
        """`graph` is in float32; its weights are copied. A larger batch is run in portions.

        Each batch size is compiled and captured when it comes for the first time, or by `prepare`.
        """
        self.spec = spec
        self._size = size
        self._device = torch.device("cuda", torch.cuda.current_device())
        dtype = getattr(torch, spec.precision)
        # Pixels come as rows of RGB, which is what channels_last means: convolutions need no copy.
        self._forward: Any = graph.converted(dtype, self._device)
        self._forward.to(memory_format=torch.channels_last)
        if spec.backend == "compiled":
            from torch._dynamo import config

            config.recompile_limit = 64  # one for each batch size
            self._forward = torch.compile(self._forward, dynamic=False)
        self._buckets = bucket_sizes(max_batch)
        self._stream = _cuda.Stream(self._device)
        self._captured: dict[int, _CapturedBatch] = {}
        # One for all graphs: they never run at once, and each output is copied before the next.
        self._memory = torch.cuda.graph_pool_handle()
        self._starting = threading.Lock()
        with torch.inference_mode():
            width = self._forward(self._zeros(1)).shape[1]
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(SLOTS):
            self._slots.put(_Slot(self._device, max_batch, size, width))
        torch.cuda.synchronize(self._device)  # all of that was started on another stream

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        parts = [
            self._encode(pictures[part]) for part in portions(len(pictures), self._buckets[-1])
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @torch.inference_mode()
    def _encode(self, pictures: Sequence[Picture]) -> Embeddings:
        count = len(pictures)
        bucket = bucket_for(count, self._buckets)
        slot = self._slots.get()
        try:
            self._size.copy(pictures, slot.pixels)
            # What an earlier batch left in the rows up to the bucket is computed and thrown away.
            with torch.cuda.stream(slot.stream):
                slot.device_pixels[:bucket].copy_(slot.pinned_pixels[:bucket], non_blocking=True)
                slot.copied.record()
            with self._starting, torch.cuda.stream(self._stream):
                self._stream.wait_event(slot.copied)
                output = self._run(slot.device_pixels[:bucket])
                slot.pinned_embeddings[:bucket].copy_(output, non_blocking=True)
                slot.done.record()
            slot.done.synchronize()
            return slot.embeddings[:count].copy()
        finally:
            self._slots.put(slot)

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        """Starts a forward pass of a prepared size on the current stream."""
        if self.spec.backend == "pytorch":
            output: torch.Tensor = self._forward(pixels)
            return output
        count = len(pixels)
        if count not in self._captured:
            pixels_of_graph = self._zeros(count)
            self._captured[count] = _CapturedBatch(
                self._forward, pixels_of_graph, self._stream, self._memory
            )
        return self._captured[count].replay(pixels)

    def _zeros(self, count: int) -> torch.Tensor:
        shape = (count, self._size.height, self._size.width, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=self._device)

    def prepare(self) -> None:
        """As ImageTower.prepare: compiles and captures every batch size."""
        blank = bytes(self._size.height * self._size.width * 3)
        for size in self._buckets:
            self.encode([blank] * size)

    def close(self) -> None:
        """Waits for what runs, and lets the graphs and the weights go."""
        torch.cuda.synchronize(self._device)
        self._captured.clear()
        self._forward = None


class _Slot:
    """Where one batch is laid on its way to the device, and its embeddings on their way back."""

    def __init__(self, device: torch.device, batch: int, size: PictureSize, width: int) -> None:
        shape = (batch, size.height, size.width, 3)
        self.pinned_pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self.pixels = self.pinned_pixels.numpy()  # the same memory
        self.device_pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.pinned_embeddings = torch.zeros(batch, width, pin_memory=True)
        self.embeddings = self.pinned_embeddings.numpy()
        self.stream = _cuda.Stream(device)
        self.copied = _cuda.Event()
        # Blocking: a thread that asks again and again would keep a core from the decoders.
        self.done = _cuda.Event(blocking=True)


class _CapturedBatch:
    """A forward pass of one batch size, recorded once: it starts without Python's work for it."""

    def __init__(
        self, forward: Any, pixels: torch.Tensor, stream: torch.cuda.Stream, memory: Any
    ) -> None:
        """`pixels` is where the graph reads from; it stays its own."""
        self._pixels = pixels
        for _ in range(_WARM_UPS):
            forward(pixels)
        self._graph = torch.cuda.CUDAGraph()
        # The other slot may be copying meanwhile, from another thread.
        with torch.cuda.graph(
            self._graph, pool=memory, stream=stream, capture_error_mode="thread_local"
        ):
            self._output: torch.Tensor = forward(pixels)

    def replay(self, pixels: torch.Tensor) -> torch.Tensor:
        """Starts it on the current stream; the output is valid there until the next replay."""
        self._pixels.copy_(pixels)
        self._graph.replay()
        return self._output
