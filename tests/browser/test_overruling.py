"""An administrator overrules a reject in the browser, and pict-rs is told so the next time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import Watched, chromium, needs_chromium
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import gateway, inference
from tests.media import drawn, still

pytestmark = needs_chromium

PICTURE = drawn(("red", "triangle"), size=400)
ORIGINAL = still(PICTURE)
COPY = still(PICTURE, "image/jpeg", quality=80)


def upload(gateway: str, file: bytes, media_type: str = "image/png") -> Answer:
    """Posts a file; in a thread, as Playwright has an event loop running in this one."""
    answers: list[Answer] = []

    def send() -> None:
        answers.append(asyncio.run(post(gateway, file, media_type)))

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize("alike", [False, True])
def test_a_reject_is_overruled(alike: bool) -> None:
    with inference() as scoring, gateway(scoring.address) as http, chromium() as browser:
        rejected = upload(http.address, ORIGINAL)
        assert (rejected.status, rejected.body["rule"]) == (406, "red-and-triangle")
        watched = Watched(browser.new_context())
        page = watched.page
        page.goto(f"http://{http.admin}/decisions?decision=reject")
        page.locator("tbody a").first.click()
        page.get_by_label("Reason").fill("an innocent drawing")
        if alike:
            page.get_by_label("Also what looks alike").check()
        page.get_by_role("button", name="Allow these bytes").click()
        expect(page.get_by_role("status")).to_contain_text("From now on these bytes are allowed")
        allowed = upload(http.address, ORIGINAL)
        assert (allowed.status, allowed.body["cause"]) == (200, "override")
        copy = upload(http.address, COPY, "image/jpeg")
        wanted = (200, "override") if alike else (406, "policy")
        assert (copy.status, copy.body["cause"]) == wanted
        page.goto(f"http://{http.admin}/decisions/{allowed.body['id']}")
        expect(page.locator("main")).to_contain_text("Decided by an override of local")
        assert watched.complaints == []
