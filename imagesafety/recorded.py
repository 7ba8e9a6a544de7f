"""Recorded decisions with their similarities, and how they travel from a gateway: one JSON a line.

A stream begins with a `start` line. The text of a policy comes before the first decision that was
made by it. An `end` line says that nothing is missing, an `error` line why something is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from imagesafety.policy import Action, Mode, Policy
from imagesafety.policy_file import PolicyError, parse_policy

MEDIA_TYPE = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision as it was recorded, with what it takes to judge the file again.

    `at` is in microseconds since 1970, UTC; `sha256` is hexadecimal. `similarities` has one tuple
    per view, one cosine per concept of the policy with `policy_digest`, in its order. `excepted`
    names the rules whose hits perceptual allows of that time overrule. `override_stays` says that
    an override decided which holds under any policy, `override_gone` that the one which decided is
    there no more. `override_now` is what an override that holds under any policy says today,
    `allowed_now` names the rules whose hits perceptual allows overrule today.
    """

    id: str
    at: int
    client: str
    client_mode: Mode
    sha256: str | None
    decision: Literal["accept", "reject"]
    cause: str
    model: str
    weights_digest: str
    policy_digest: str
    similarities: tuple[tuple[float, ...], ...]
    rule: str | None = None
    flagged: bool = False
    shadow: Action | None = None
    shadow_rule: str | None = None
    partial: str = ""
    excepted: tuple[str, ...] = ()
    override_stays: bool = False
    override_gone: bool = False
    override_now: Literal["allow", "deny"] | None = None
    allowed_now: tuple[str, ...] = ()

    def today(self, rule: str | None) -> Literal["allow", "deny"] | None:
        """What overrides say today of the file, where this rule holds for it."""
        if self.override_now is not None:
            return self.override_now
        return "allow" if rule in self.allowed_now else None


class RecordedStreamError(Exception):
    """A stream of recorded decisions that is broken or not whole; the message says how."""


def start_line(*, accepts_undecodable: bool) -> bytes:
    """The first line: whether the gateway accepts what no decoder can read."""
    return _line({"start": {"accepts_undecodable": accepts_undecodable}})


def policy_line(digest: str, text: str) -> bytes:
    """The text of a policy that decisions of the stream were made by."""
    return _line({"policy": {"digest": digest, "text": text}})


def decision_line(recorded: Recorded) -> bytes:
    """A decision; similarities as little-endian float32 in base64."""
    content = {name: getattr(recorded, name) for name in Recorded.__slots__}
    content["similarities"] = [_packed(view) for view in recorded.similarities]
    return _line({"decision": content})


def end_line(*, last: int, more: bool) -> bytes:
    """The last line: the `after` with which the next request goes on, and whether there is more."""
    return _line({"end": {"last": last, "more": more}})


def error_line(message: str) -> bytes:
    """The last line of a stream that could not be finished."""
    return _line({"error": message})


def _line(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _packed(view: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(view)}f", *view)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    data = base64.b64decode(text, validate=True)
    return struct.unpack(f"<{len(data) // 4}f", data)


class RecordedStream:
    """Reads the lines of a stream; once, by iterating over it.

    `accepts_undecodable` is known at once. `policies` fills up meanwhile, always ahead of the
    decisions; a policy that this version can't read is left out. `last` and `more` are known at
    the end.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Reads the first line. Raises RecordedStreamError."""
        self._lines = iter(lines)
        self.policies: dict[str, Policy] = {}
        self.last, self.more = 0, False
        with _explaining():
            kind, content = self._next()
            if kind != "start":
                raise ValueError("it does not start with a start line")
            self.accepts_undecodable = bool(content["accepts_undecodable"])

    def __iter__(self) -> Iterator[Recorded]:
        """Yields the decisions. Raises RecordedStreamError."""
        while True:
            with _explaining():
                kind, content = self._next()
                if kind == "decision":
                    recorded = _recorded(content)
                elif kind == "end":
                    self.last, self.more = int(content["last"]), bool(content["more"])
                    return
                elif kind == "policy":
                    self._take_policy(content["digest"], content["text"])
                    continue
                else:
                    raise ValueError(f"a line of unknown kind {kind!r}")
            yield recorded

    def _next(self) -> tuple[str, Any]:
        line = next(self._lines, None)
        if line is None:
            raise RecordedStreamError("the answer broke off before its end")
        content = json.loads(line)
        if not isinstance(content, dict) or len(content) != 1:
            raise ValueError("a line with other than one key")
        if "error" in content:
            raise RecordedStreamError(f"the gateway could not go on: {content['error']}")
        kind, value = next(iter(content.items()))
        return kind, value

    def _take_policy(self, digest: str, text: str) -> None:
        with contextlib.suppress(PolicyError):
            self.policies[digest] = parse_policy(text)


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, struct.error) as error:
        message = "an answer that can't be read, perhaps of another version"
        raise RecordedStreamError(f"{message}: {error}") from error


def _recorded(content: dict[str, Any]) -> Recorded:
    content["client_mode"] = Mode(content["client_mode"])
    content["shadow"] = Action(content["shadow"]) if content["shadow"] is not None else None
    content["similarities"] = tuple(_unpacked(view) for view in content["similarities"])
    for name in ("excepted", "allowed_now"):
        content[name] = tuple(content[name])
    return Recorded(**content)
