"""The first page of a gateway that was never called, refused everybody, or is called."""

import asyncio

from tests.e2e.pict_rs import post
from tests.e2e.processes import fetch, gateway, off_loop
from tests.e2e.scripted_inference import scripted
from tests.e2e.test_forms import harmless
from tests.e2e.test_pair import GOOD

NEVER = "No upload has ever come to this gateway."


async def test_the_first_page_says_that_nobody_has_called() -> None:
    async with scripted(harmless) as (target, _), off_loop(gateway(target)) as here:

        async def overview() -> str:
            status, page = await asyncio.to_thread(fetch, f"http://{here.admin}/")
            assert status == 200
            return page

        page = await overview()
        assert NEVER in page
        assert "http-client-error" in page
        ready = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
        assert ready[0] == 200
        assert (await post(here.address, GOOD, path="/api/v1/scan/a-stranger")).status == 401
        assert (await post(here.address, GOOD, "text/plain")).status == 415
        page = await overview()
        assert NEVER not in page
        assert "2 calls were refused; the last one with status 415" in page
        assert "text/plain is not scanned" in page
        assert (await post(here.address, GOOD)).status == 200
        page = await overview()
        assert "No upload has ever come" not in page
        assert "pict-rs v0.5.0-main" in page
        assert "of client IPADDR" in page
        assert await asyncio.to_thread(fetch, f"http://{here.address}/readyz") == ready
