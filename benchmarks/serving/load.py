"""The process that puts load on a service: `python -m benchmarks.serving.load grpc|http`.

Takes one JSON object a line from standard input and answers each with one on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.serving import grpc_calls, http_calls
from benchmarks.serving.material import pictures, triton_requests
from benchmarks.serving.measuring import Call, Measurement, all_at_once, closed_loop, open_loop

SCORED = b'"cause":"policy"'  # any other cause is an image that was not scored
REPEATED = b'"cause":"repeat"'


def _calls(
    path: str, target: str, kind: str, requests: str
) -> contextlib.AbstractAsyncContextManager[Call]:
    """The way that load takes; `requests` is where ready requests for Triton are."""
    files = _files(kind)
    match path:
        case "ScoreImage":
            return grpc_calls.score_image(target, files)
        case "ScoreImages":
            return grpc_calls.score_images(target, files)
        case "bare gRPC":
            return grpc_calls.count_bytes(target, files)
        case "bare unary":
            return grpc_calls.unary(target, files)
        case "HTTP":
            return http_calls.posts(target, http_calls.SCAN, files, SCORED)
        case "HTTP, first time or repeat":
            return http_calls.posts(target, http_calls.SCAN, files, b'"cause":')
        case "HTTP repeats":
            return http_calls.posts(target, http_calls.SCAN, files, REPEATED)
        case "bare HTTP":
            return http_calls.posts(target, http_calls.SCAN, files, b"bytes")
        case "LitServe":
            answer = b'"similarities"'
            return http_calls.posts(target, "/predict", files, answer, chunked=False)
        case "Triton":
            return grpc_calls.model_infer(target, triton_requests(Path(requests), kind))
        case _:
            raise ValueError(path)


@lru_cache
def _files(kind: str) -> list[bytes]:
    return pictures(kind)


async def _measure(command: dict[str, Any]) -> Measurement:
    path, target, kind = command["path"], command["target"], command["files"]
    async with _calls(path, target, kind, command.get("requests", "")) as call:
        if "at_once" in command:
            return await all_at_once(call, command["at_once"])
        if "rate" in command:
            seconds, seed = command["seconds"], command["seed"]
            return await open_loop(call, command["rate"], seconds, seed)
        return await closed_loop(call, command["concurrency"], command["seconds"])


async def _run() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = asdict(await _measure(json.loads(line)))
        except* Exception as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            answer = {"error": f"{type(first).__name__}: {first}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "http":
        uvloop.run(_run())
    else:
        asyncio.run(_run())
