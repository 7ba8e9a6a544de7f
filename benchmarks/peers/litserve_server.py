"""LitServe: `python -m benchmarks.peers.litserve_server MODEL PORT`."""

import sys
from typing import Annotated, Any

import litserve
import torch
from fastapi import Body

from benchmarks.peers.clip import Clip
from benchmarks.serving.material import SMALL, pictures

MAX_BATCH = 16
# How long its loop waits for a batch to fill. While it predicts, requests gather by themselves.
BATCH_SECONDS = 0.001
THREADS = 2


class ClipApi(litserve.LitAPI):  # type: ignore[misc]
    """The steps of a request, as LitServe wants them; all run in its one worker process."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_SECONDS)
        self._name = model

    def setup(self, device: str) -> None:
        """Loads the model."""
        self._clip = Clip(self._name, THREADS)
        self._clip.similarities([self._clip.pixels(data) for data in pictures(SMALL)[:MAX_BATCH]])

    # LitServe reads the annotation itself, so it can't be a string.
    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        """JPEG bytes to pixels."""
        return self._clip.pixels(request)

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Leaves the stacking to the model."""
        return inputs

    def predict(self, x: list[torch.Tensor]) -> torch.Tensor:
        """Similarities of a batch."""
        return self._clip.similarities(x)

    def unbatch(self, output: torch.Tensor) -> list[list[float]]:
        """A row for each request."""
        rows: list[list[float]] = output.tolist()
        return rows

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        """The answer."""
        return {"similarities": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        ClipApi(sys.argv[1]), accelerator="cpu", timeout=600, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
