"""Servers that do nothing but what no server can do without: `… floor grpc|http ADDRESS [TARGET]`.

`grpc` is a client-streaming handler that counts bytes. `http` is a Starlette endpoint that forwards
the chunks of a body to it as they come.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.serving.grpc_calls import SERVICE
from gateway.server import KEEP_ALIVE_SECONDS


async def _count(
    messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
) -> bytes:
    count = 0
    async for message in messages:
        count += len(message)
    return b"%d" % count


async def _echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b"%d" % len(request)


async def serve_grpc(address: str) -> None:
    """Counts bytes until SIGTERM; `Unary` gets them in one message."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "ScoreImage": grpc.stream_unary_rpc_method_handler(_count),
        "Unary": grpc.unary_unary_rpc_method_handler(_echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(address)
    await server.start()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()
    await server.stop(None)


def serve_http(address: str, target: str) -> None:
    """Forwards bodies until SIGTERM, on uvicorn with the gateway's settings."""
    host, _, port = address.partition(":")
    config = uvicorn.Config(
        _forwarding(target),
        host=host,
        port=int(port),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
    )
    uvicorn.Server(config).run()


def _forwarding(target: str) -> Starlette:
    methods: list[grpc.aio.StreamUnaryMultiCallable[bytes, bytes]] = []

    async def forward(request: Request) -> JSONResponse:
        if not methods:  # a channel belongs to the event loop, which runs by now
            channel = grpc.aio.insecure_channel(target)
            methods.append(channel.stream_unary(f"/{SERVICE}/ScoreImage"))
        call = methods[0]()
        async for chunk in request.stream():
            if chunk:
                await call.write(chunk)
        await call.done_writing()
        return JSONResponse({"bytes": int(await call)})

    return Starlette(routes=[Route("/api/v1/scan/{client_id}", forward, methods=["POST"])])


if __name__ == "__main__":
    if sys.argv[1] == "grpc":
        asyncio.run(serve_grpc(sys.argv[2]))
    else:
        serve_http(sys.argv[2], sys.argv[3])
