"""Every admin page over real decisions: drawn pictures, sent through the real services.

With SCREENSHOTS=1 the pictures go to docs/screenshots, else nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from inference.demo.drawing import canvas_size, random_aspect, random_scene, render
from tests.browser.chromium import Watched, chromium, needs_chromium
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import free_port, gateway, inference
from tests.media import drawn, moving, still

pytestmark = needs_chromium

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
MOST_BYTES = 150_000
TOKEN = "admin-token-of-tests"
LEMMY, PIEFED = "lemmy-secret-of-tests", "piefed-secret-of-tests"
POLICY = """
model = "demo"

[concepts]
red = ["something red", "a red shape"]
triangle = ["a triangle", "triangles"]
star = ["a star", "stars"]
blue = ["something blue", "a blue shape"]
circle = ["a circle", "circles"]

[[adjustments]]
when = { star = 0.107 }
add = { triangle = -0.02 }

[groups.colour]
thresholds = { red = 0.2 }

[groups.shape]
at_least = 1
thresholds = { triangle = 0.107 }
critical = { triangle = 0.18 }

[groups.blue-circle]
at_least = 2
thresholds = { blue = 0.107, circle = 0.107 }

[[rules]]
name = "red-and-triangle"
all = ["colour", "shape"]

[[rules]]
name = "blue-circle"
all = ["blue-circle"]
action = "flag"

[[rules]]
name = "any-triangle"
all = ["shape"]
mode = "shadow"
"""


class Gallery:
    """Where screenshots go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, page: Page, name: str, most_height: int = 2200) -> None:
        """Keeps the page as it looks, with few colours: a quarter of the bytes."""
        width = page.evaluate("innerWidth")
        height = min(most_height, page.evaluate("document.documentElement.scrollHeight"))
        taken = page.screenshot(
            full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}
        )
        path = self._folder / f"{name}.png"
        with Image.open(io.BytesIO(taken)) as picture:
            few = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
            few.save(path, optimize=True)
        assert path.stat().st_size < MOST_BYTES


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    folder = FOLDER if os.environ.get("SCREENSHOTS") else tmp_path
    folder.mkdir(exist_ok=True)
    return Gallery(folder)


async def send(gateway: str, client: str, file: bytes, media_type: str = "image/png") -> Answer:
    return await post(gateway, file, media_type, f"/api/v1/scan/{client}")


async def send_drawings(gateway: str) -> list[Answer]:
    """Uploads of all sorts; the last two are an animation and a wide picture, both rejected."""
    rng = np.random.default_rng(5)
    files = [(b"\x89PNG\r\n\x1a\n and then nothing", "image/png")]
    for index in range(70):
        size = canvas_size(float(rng.integers(200, 500)), random_aspect(rng))
        picture = render(random_scene(rng, aspect=size[0] / size[1]), *size)
        kind = ("image/png", "image/jpeg", "image/webp")[index % 3]
        files.append((still(picture, kind), kind))
    files += files[:8]
    clients = (LEMMY, LEMMY, PIEFED, "IPADDR")
    answers = [
        await send(gateway, clients[index % 4], file, kind)
        for index, (file, kind) in enumerate(files)
    ]
    frames = [drawn(("green", "circle"), seed=n) for n in range(5)]
    frames += [drawn(("red", "triangle"), ("blue", "circle"), seed=n) for n in range(3)]
    answers.append(await send(gateway, LEMMY, moving(frames, "image/gif"), "image/gif"))
    wide = Image.new("RGB", (900, 300), (236, 236, 230))
    wide.paste(drawn(("blue", "star"), seed=4), (0, 0))
    wide.paste(drawn(("red", "triangle"), seed=3), (600, 0))
    return [*answers, await send(gateway, PIEFED, still(wide))]


async def send_unscanned(gateway: str) -> None:
    """Uploads while there is nobody to score them."""
    for seed in range(3):
        await send(gateway, LEMMY, still(drawn(("green", "square"), seed=seed)))


def spread_over_a_day(folder: Path) -> None:
    """Makes the recorded times those of a day with a busy evening, in their order."""
    rng = np.random.default_rng(1)
    with contextlib.closing(sqlite3.connect(next(folder.glob("*.db*")))) as database, database:
        sequence = [seq for (seq,) in database.execute("SELECT seq FROM decisions ORDER BY seq")]
        busy = np.concatenate([rng.uniform(0, 23, 60), rng.normal(14, 2.5, len(sequence))])
        hours = np.sort(np.clip(busy[: len(sequence)], 0.1, 22.9))
        start = time.time() - 23 * 3600
        for seq, hour in zip(sequence, hours, strict=True):
            at = int((start + 3600 * hour) * 1e6)
            database.execute("UPDATE decisions SET at = ? WHERE seq = ?", (at, seq))


def test_every_page_over_real_decisions(gallery: Gallery, tmp_path: Path) -> None:
    policy, data = tmp_path / "policy.toml", tmp_path / "data"
    policy.write_text(POLICY)
    flags = ["--policy", str(policy), "--client-secrets", f"lemmy:{LEMMY},piefed:{PIEFED}"]
    nobody = f"127.0.0.1:{free_port()}"
    with gateway(nobody, *flags, ready=False, data_folder=data) as http:
        asyncio.run(send_unscanned(http.address))
    with inference() as scoring:
        with gateway(scoring.address, *flags, data_folder=data) as http:
            *_, animation, wide = asyncio.run(send_drawings(http.address))
            assert (animation.status, wide.status) == (406, 406)
        spread_over_a_day(data)
        flags += ["--admin-token", TOKEN]
        with gateway(scoring.address, *flags, data_folder=data) as http, chromium() as browser:
            context = browser.new_context(viewport={"width": 1100, "height": 760})
            watched = Watched(context)
            _log_in(watched, f"http://{http.admin}", gallery)
            _tour(watched.page, f"http://{http.admin}", gallery, animation, wide)
            _on_a_phone(browser, f"http://{http.admin}", gallery, wide)
            assert watched.complaints == []
            context.close()


def _log_in(watched: Watched, home: str, gallery: Gallery) -> None:
    page = watched.page
    page.goto(home)
    gallery.keep(page, "login")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Admin token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("h1")).to_have_text("Overview")
    watched.complaints.clear()  # of the 401 that showed the login


def _tour(page: Page, home: str, gallery: Gallery, animation: Answer, wide: Answer) -> None:
    page.goto(f"{home}/decisions/{wide.body['id']}")
    gallery.keep(page, "decision")
    page.goto(f"{home}/decisions/{animation.body['id']}")
    gallery.keep(page, "decision-animation")
    page.get_by_label("Reason").fill("a harmless animation of ours")
    page.get_by_role("button", name="Allow these bytes").click()
    expect(page.get_by_role("status")).to_contain_text("From now on")
    page.goto(f"{home}/overrides")
    page.get_by_label("deny", exact=True).check()
    page.get_by_role("textbox", name="SHA-256").fill("ab" * 32)
    page.get_by_label("Reason").first.fill("reported by a neighbouring server")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_contain_text("in force")
    _import_a_list(page, home, gallery)
    page.goto(f"{home}/overrides")
    gallery.keep(page, "overrides")
    page.locator("tbody a").last.click()
    gallery.keep(page, "override")
    page.goto(f"{home}/overrides/history")
    gallery.keep(page, "history")
    for name in ("overview", "decisions", "unscanned"):
        page.goto(f"{home}/{name.removeprefix('overview')}")
        gallery.keep(page, name, most_height=1100)
    page.goto(f"{home}/what-if?period=24h")
    _move(page, "red", "ArrowRight", 90)
    page.get_by_role("group", name="blue-circle").get_by_label("counts at least").press("ArrowLeft")
    expect(page.locator("#effect")).to_contain_text("would have come out otherwise")
    expect(page.locator("#effect")).to_contain_text("at_least 2 → 1")
    gallery.keep(page, "what-if", most_height=1300)


def _import_a_list(page: Page, home: str, gallery: Gallery) -> None:
    """A list with two sound lines, and one of each kind of broken ones."""
    lines = ["# from a neighbouring server", "1f" * 32, "not a hash", "2e" * 32, "3d" * 31]
    page.goto(f"{home}/overrides")
    file = {"name": "list.txt", "mimeType": "text/plain", "buffer": "\n".join(lines).encode()}
    page.get_by_label("File").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_label("Reason").last.fill("shared by a neighbouring server")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_role("main")).to_contain_text("2 entries are new and in force")
    gallery.keep(page, "import")


def _move(page: Page, label: str, key: str, times: int) -> None:
    slider = page.get_by_label(label, exact=True).first
    for _ in range(times):
        slider.press(key)


def _on_a_phone(browser: Browser, home: str, gallery: Gallery, wide: Answer) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        color_scheme="dark",
        extra_http_headers={"Authorization": f"Bearer {TOKEN}", "X-Admin-Name": "ada"},
    )
    page = context.new_page()
    page.goto(home)
    gallery.keep(page, "overview-phone")
    page.goto(f"{home}/decisions/{wide.body['id']}")
    gallery.keep(page, "decision-phone")
    context.close()
