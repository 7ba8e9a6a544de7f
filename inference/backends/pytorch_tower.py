"""The image tower in PyTorch on a CPU, as open_clip made it or compiled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from inference.backends.lanes import CpuShare, Lanes
from inference.backends.tower import Embeddings, Picture, PictureSize, TowerSpec


class ImageGraph(torch.nn.Module):
    """From (N, H, W, 3) uint8 to (N, D) float32 rows of length 1; every backend computes this."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        visual: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.dtype = dtype
        self._statistics = (mean, std)
        # Of bytes, not of fractions: that is one pass over the pixels less.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalises on the device, so that bytes travel and not floats."""
        inputs = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        output = self.visual(inputs.to(self.dtype))
        pooled: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return F.normalize(pooled.float(), dim=-1)

    def converted(self, dtype: torch.dtype, device: torch.device) -> ImageGraph:
        """A copy with its weights in `dtype` on a device.

        Autocast would keep some layers in float32, but it casts each weight in each call: on a CPU
        that takes longer than it saves.
        """
        visual = copy.deepcopy(self.visual).to(device, dtype)
        return ImageGraph(visual, *self._statistics, dtype).to(device).eval()


class PyTorchTower:
    """Runs the graph in the calling thread, and threads that help it."""

    def __init__(
        self, spec: TowerSpec, graph: ImageGraph, size: PictureSize, share: CpuShare
    ) -> None:
        """`graph` is in float32 on the CPU; its weights are copied for a lower precision."""
        self.spec = spec
        self._size = size
        self._share = share
        self._lanes = Lanes()
        dtype = getattr(torch, spec.precision)
        exact = dtype is torch.float32
        self._run: Any = graph if exact else graph.converted(dtype, torch.device("cpu"))
        self.concurrency = share.lanes
        if spec.backend == "compiled":  # for a number of threads, which can't be changed then
            self._run = torch.compile(self._run, dynamic=True)
            self.concurrency = 1

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """As ImageTower.encode."""
        pixels = torch.from_numpy(self._size.stacked(pictures))
        with self._lanes.batch() as alone:
            # Of the calling thread, for what it starts from here on.
            torch.set_num_threads(self._share.threads if alone else self._share.threads_of_lane)
            embeddings: Embeddings = self._run(pixels).numpy()
        return embeddings

    def prepare(self) -> None:
        """As ImageTower.prepare: there is nothing to do."""

    def close(self) -> None:
        """Lets the weights go."""
        self._run = None
