"""Uploads to pict-rs, red triangles and blue circles in turn, and the end of each."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import httpx
from PIL import Image

from tools.containers.images import ROOT

_CLIENTS: Final = 3  # pict-rs itself keeps two cores busy with them
_TIMEOUT: Final = 40.0


@dataclass(frozen=True)
class Uploaded:
    """One upload: its picture, pict-rs's status (0: no answer), and its alias if accepted."""

    red: bool
    begun: float
    seconds: float
    status: int
    alias: str = ""


@dataclass
class Traffic:
    """Uploads that were made. Each picture has a pixel of its own, so that no two are the same."""

    url: str
    made: list[Uploaded] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("blue-circle.png", "red-triangle.png")
        self._pictures = [Image.open(ROOT / "examples" / name).convert("RGB") for name in names]
        self._numbers = itertools.count(time.time_ns() % 2**22)
        self._lock = threading.Lock()

    def upload(self, *, red: bool, client: httpx.Client | None = None) -> Uploaded:
        """Upload one picture, and note what became of it."""
        begun, status, alias = time.monotonic(), 0, ""
        files = {"images[]": ("picture.png", self._picture(red=red), "image/png")}
        with contextlib.suppress(httpx.HTTPError, LookupError, ValueError):
            post = client.post if client is not None else httpx.post
            answer = post(f"{self.url}/image", files=files, timeout=_TIMEOUT)
            status = answer.status_code
            if answer.is_success:
                alias = answer.json()["files"][0]["file"]
        made = Uploaded(red, begun, time.monotonic() - begun, status, alias)
        with self._lock:
            self.made.append(made)
        return made

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Keep uploading until the block ends."""
        stop = threading.Event()

        def work(first: int) -> None:
            with httpx.Client() as client:
                for number in itertools.count(first):
                    if stop.is_set():
                        return
                    made = self.upload(red=number % 2 == 0, client=client)
                    if not made.status:  # refused at once: not a busy loop
                        stop.wait(0.2)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def scored_after(self, moment: float) -> float | None:
        """Return the seconds from a moment to the first red triangle that was rejected after it.

        None where there was none. Only what was scored is rejected.
        """
        ends = [one.begun + one.seconds for one in self.made if one.red and one.status == 400]
        return min((end - moment for end in ends if end > moment), default=None)

    def stored_red(self) -> list[str]:
        """Return the red triangles that pict-rs still serves."""
        aliases = [one.alias for one in self.made if one.red and one.alias]
        return [alias for alias in aliases if self._is_served(alias)]

    def refused_blue(self) -> int:
        """Return how many blue circles were rejected, as opposed to failed."""
        return sum(not one.red and 400 <= one.status < 500 for one in self.made)

    def lost_blue(self) -> int:
        """Return how many blue circles were accepted, and are gone."""
        aliases = [one.alias for one in self.made if not one.red and one.alias]
        return sum(not self._is_served(alias) for alias in aliases)

    def failed(self) -> int:
        """Return how many uploads pict-rs failed, or did not answer: nothing was kept of them."""
        return sum(one.status == 0 or one.status >= 500 for one in self.made)

    def _is_served(self, alias: str) -> bool:
        answer = httpx.get(f"{self.url}/image/original/{alias}", timeout=_TIMEOUT)
        if answer.status_code not in (200, 404):
            raise httpx.HTTPStatusError("?", request=answer.request, response=answer)
        return answer.status_code == 200

    def _picture(self, *, red: bool) -> bytes:
        picture = self._pictures[red].copy()
        number = next(self._numbers)
        for place in range(2):
            part = number >> 12 * place
            colour = (64 + (part >> 8) % 16, 56 + (part >> 4) % 16, 56 + part % 16)
            picture.putpixel((place, 0), colour)
        data = io.BytesIO()
        picture.save(data, "PNG")
        return data.getvalue()
