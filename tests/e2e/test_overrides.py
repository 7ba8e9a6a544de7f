"""A rejected picture is allowed, on the admin pages, and comes again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import post
from tests.e2e.processes import Service, gateway
from tests.media import drawn, still

PICTURE = drawn(("red", "triangle"), ("blue", "star"), seed=3)
REJECTED = still(PICTURE)


@pytest.fixture
def here(pair: Pair, tmp_path: Path) -> Iterator[Service]:
    """A gateway of its own, with an empty ledger."""
    with gateway(pair.inference, data_folder=tmp_path) as service:
        yield service


def re_encoded(picture: Image.Image) -> bytes:
    """The same picture for people, in another format, size and quality."""
    smaller = picture.resize((240, 240 * picture.height // picture.width))
    return still(smaller, "image/jpeg", quality=70)


async def overrule(admin: str, decision: str, **fields: str) -> str:
    """Fills in the form on a decision's page; what the page says then."""
    url = f"http://{admin}"
    async with httpx.AsyncClient(base_url=url, headers={"origin": url}) as browser:
        page = await browser.get(f"/decisions/{decision}")
        [token] = set(re.findall(r'name="form_token" value="([^"]+)"', page.text))
        answer = await browser.post(
            f"/decisions/{decision}/override", data={"form_token": token, **fields}
        )
        assert answer.status_code == 303, answer.text
        return (await browser.get(answer.headers["location"])).text


@pytest.mark.parametrize("alike", [True, False])
async def test_an_allowed_picture_is_accepted_and_its_copies_if_that_was_meant(
    alike: bool, here: Service
) -> None:
    rejected = await post(here.address, REJECTED)
    assert (rejected.status, rejected.body["cause"]) == (406, "policy")
    fields = {"action": "allow", "why": "a drawing"} | ({"alike": "1"} if alike else {})
    said = await overrule(here.admin, rejected.body["id"], **fields)
    assert "From now on these bytes are allowed" in said
    again = await post(here.address, REJECTED)
    assert (again.status, again.body["cause"]) == (200, "override")
    copy = await post(here.address, re_encoded(PICTURE), "image/jpeg")
    if alike:
        assert (copy.status, copy.body["cause"]) == (200, "override")
    else:
        assert (copy.status, copy.body["cause"]) == (406, "policy")
    other = still(drawn(("red", "triangle"), seed=9))
    assert (await post(here.address, other)).status == 406


async def test_a_denied_picture_and_its_copies_are_rejected(here: Service) -> None:
    harmless = drawn(("blue", "circle"), ("green", "star"), seed=5)
    accepted = await post(here.address, still(harmless))
    assert (accepted.status, accepted.body["cause"]) == (200, "policy")
    await overrule(here.admin, accepted.body["id"], action="deny", why="spam", alike="1")
    for data, media_type in (
        (still(harmless), "image/png"),
        (re_encoded(harmless), "image/jpeg"),
    ):
        answer = await post(here.address, data, media_type)
        assert (answer.status, answer.body["cause"]) == (406, "override")


async def test_denied_bytes_are_rejected_while_inference_is_down(
    pair: Pair, tmp_path: Path
) -> None:
    """Also by a gateway that has just started, with the overrides of an earlier one."""
    with gateway(pair.inference, data_folder=tmp_path) as service:
        accepted = await post(service.address, still(drawn(("blue", "circle"))))
        await overrule(service.admin, accepted.body["id"], action="deny", why="spam")
    with gateway("127.0.0.1:9", data_folder=tmp_path, ready=False) as service:
        answer = await post(service.address, still(drawn(("blue", "circle"))))
        assert (answer.status, answer.body["cause"]) == (406, "override")
        unknown = await post(service.address, still(drawn(("green", "circle"))))
        assert (unknown.status, unknown.body["cause"]) == (200, "unavailable")
