"""A place and a service in memory, for what a scan does between them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import Literal

import grpc

from imagesafety.bulk import BulkImage, BulkResult, ScoringError
from imagesafety.policy_file import parse_policy
from imagesafety.scores import ImageScores, ModelIdentity, PerceptualHash, View
from imagesafety.stored.actions import Outcome
from imagesafety.stored.place import FileTroubleError, StoredFile, Unlisted, gone
from imagesafety.stored.scan_pass import Looked
from imagesafety.stored.state import Known

MODEL = ModelIdentity("demo", "sha256:1", "none")


def policy_of(threshold: float = 0.5, *, prompts: str = "bad", extra: str = "", mode: str = ""):  # type: ignore[no-untyped-def]
    return parse_policy(
        f"""
model = "demo"
[concepts]
bad = ["{prompts}"]
odd = ["odd"]
[groups.bad]
thresholds = {{ bad = {threshold} }}
[groups.odd]
thresholds = {{ odd = 0.5 }}
[[rules]]
name = "bad"
all = ["bad"]
action = "reject"
{mode}
[[rules]]
name = "odd"
all = ["odd"]
action = "flag"
{extra}
"""
    )


@dataclass
class MemoryPlace:
    """Files in a dict. `before_read` and the like let tests come between."""

    stored: dict[str, bytes] = field(default_factory=dict)
    identity: str = "memory"
    removing: Literal["delete", "purge"] = "delete"
    reads: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    troubles: dict[str, Exception] = field(default_factory=dict)
    unlisted: list[Unlisted] = field(default_factory=list)
    listed_since: list[float | None] = field(default_factory=list)
    listing_errors: list[Exception] = field(default_factory=list)  # each after all that is stored
    listings: int = 0  # that are open
    on_remove: Callable[[str], None] = lambda name: None
    check_error: Exception | None = None

    async def check(self) -> None:
        if self.check_error is not None:
            raise self.check_error

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        self.listed_since.append(since)
        self.listings += 1
        try:
            for part in self.unlisted:
                yield part
            for name in list(self.stored):
                if name.startswith(prefix):
                    yield self.file(name)
            if self.listing_errors:
                raise self.listing_errors.pop(0)
        finally:
            self.listings -= 1

    def file(self, name: str) -> StoredFile:
        data = self.stored[name]
        return StoredFile(name, len(data), hashlib.sha256(data).hexdigest()[:8])

    async def read(self, file: StoredFile, most: int) -> bytes:
        self.reads.append(file.name)
        if file.name in self.troubles:
            raise self.troubles[file.name]
        if file.name not in self.stored:
            raise gone()
        return self.stored[file.name]

    async def look(self, file: StoredFile) -> StoredFile | None:
        return self.file(file.name) if file.name in self.stored else None

    async def remove(self, file: StoredFile) -> bool:
        self.on_remove(file.name)
        if file.name not in self.stored or self.file(file.name).version != file.version:
            return False
        del self.stored[file.name]
        self.removed.append(file.name)
        return True

    async def close(self) -> None:
        pass


@dataclass
class MemoryScorer:
    """Scores by the bytes: `bad` and `odd` in them are what they say; errors by their reason."""

    model: ModelIdentity = MODEL
    scored: list[str] = field(default_factory=list)
    partial: str = ""
    partial_reason: str = ""
    hashes: tuple[PerceptualHash, ...] = ()
    stop_after: int | None = None  # then the process is as good as killed

    async def score(
        self, images: AsyncIterable[BulkImage[Looked]]
    ) -> AsyncGenerator[BulkResult[Looked], None]:
        async for image in images:
            if len(self.scored) == self.stop_after:
                raise KeyboardInterrupt
            self.scored.append(image.key.file.name)
            yield self._result(image)

    def _result(self, image: BulkImage[Looked]) -> BulkResult[Looked]:
        if image.data.startswith(b"error "):
            _, code, reason = image.data.decode().split()
            error = ScoringError(grpc.StatusCode[code], reason, "a message")
            return BulkResult(image.key, error=error)
        values = (0.9 if b"bad" in image.data else 0.1, 0.9 if b"odd" in image.data else 0.1)
        scores = ImageScores(
            (View(0, 0.0, (0, 0, 1, 1), values),),
            "image/png",
            1,
            1,
            self.model,
            partial=self.partial,
            partial_reason=self.partial_reason,
            perceptual_hashes=self.hashes,
        )
        return BulkResult(image.key, scores)


@dataclass
class Watcher:
    """Remembers what a scan tells."""

    seen: list[tuple[str, str, Outcome]] = field(default_factory=list)
    not_listed: list[str] = field(default_factory=list)

    def found(self, file: StoredFile, known: Known, outcome: Outcome, why: str) -> None:
        self.seen.append((file.name, str(known.finding.kind), outcome))

    def unlisted(self, part: Unlisted) -> None:
        self.not_listed.append(part.name)

    def written(self) -> None:
        pass


def unreadable(reason: str = "UNREADABLE") -> FileTroubleError:
    return FileTroubleError(reason, "it can't be read")
