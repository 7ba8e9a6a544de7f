"""A gateway that is asked to stop leads its clients away first."""

import asyncio
import signal

import httpx

from tests.e2e.processes import fetch, gateway, off_loop, wait_until
from tests.e2e.scripted_inference import scripted
from tests.e2e.test_outages import accept
from tests.e2e.test_pair import GOOD


async def test_uploads_are_taken_while_load_balancers_are_told() -> None:
    async with (
        scripted(accept) as (target, _),
        off_loop(gateway(target, "--drain-delay", "60", ready=False)) as here,
        httpx.AsyncClient(base_url=f"http://{here.address}") as client,
    ):
        path, headers = "/api/v1/scan/IPADDR", {"content-type": "image/png"}
        before = await client.post(path, content=GOOD, headers=headers)
        assert "connection" not in before.headers
        here.process.send_signal(signal.SIGTERM)
        ready = f"http://{here.address}/readyz?exclude=inference,policy"
        await asyncio.to_thread(wait_until, lambda: fetch(ready)[0] == 503, "not ready", 10)
        assert "shutting down" in (await asyncio.to_thread(fetch, ready))[1]
        assert (await asyncio.to_thread(fetch, f"http://{here.address}/livez"))[0] == 200
        for _ in range(3):  # on an open connection, and on new ones
            after = await client.post(path, content=GOOD, headers=headers)
            assert (after.status_code, after.headers["connection"]) == (200, "close")
        # Who asks a second time does not wait.
        here.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(here.process.wait, 20) == 0


async def test_the_delay_ends_by_itself() -> None:
    async with (
        scripted(accept) as (target, _),
        off_loop(gateway(target, "--drain-delay", "0.5", ready=False)) as here,
    ):
        here.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(here.process.wait, 20) == 0


async def test_a_request_whose_head_is_still_coming_is_answered() -> None:
    async with (
        scripted(accept) as (target, _),
        off_loop(gateway(target, ready=False)) as here,
    ):
        host, port = here.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/v1/scan/IPADDR HTTP/1.1\r\nHost: x\r\n")
        await writer.drain()
        # Another one's answer tells that this one's bytes have been read.
        assert (await asyncio.to_thread(fetch, f"http://{here.address}/livez"))[0] == 200
        here.process.send_signal(signal.SIGTERM)
        stopping = lambda: "running uploads are finished" in here.output()  # noqa: E731
        await asyncio.to_thread(wait_until, stopping, "the end of the drain", 10)
        while True:  # until nobody listens any more
            try:
                _, other = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                break
            other.close()
            await asyncio.sleep(0.05)
        writer.write(b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        writer.close()
        assert await asyncio.to_thread(here.process.wait, 20) == 0
