"""The overrides' routes, as curl calls them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admin.overrides_api import override_routes
from gateway.ledger.database import sqlite_url
from gateway.ledger.ledger import NoLedger
from gateway.metrics import Metrics
from gateway.overrides.store import OverrideStore
from tests.gateway.overrides.drafts import LOOK, sha
from tests.gateway.overrides.running import running_store

PATH = "/api/v1/overrides"
HOSTILE = "'; DROP TABLE overrides; -- <script>alert(1)</script>"


class Named:
    """Says who asks, in place of the admin pages' authentication."""

    def __init__(self, app: ASGIApp, who: str) -> None:
        self._app, self._who = app, who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._who:
            scope.setdefault("state", {})["who"] = self._who
        await self._app(scope, receive, send)


def client_of(store: OverrideStore, who: str = "ann") -> httpx.AsyncClient:
    app = Named(Starlette(routes=override_routes(store)), who)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OverrideStore]:
    async with running_store(sqlite_url(tmp_path / "ledger.sqlite")) as running:
        yield running


@pytest.fixture
async def api(store: OverrideStore) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(store) as client:
        yield client


async def test_an_override_comes_and_goes(store: OverrideStore, api: httpx.AsyncClient) -> None:
    entry = {
        "action": "allow",
        "sha256": sha(1).hex(),
        "pdq": LOOK.hex(),
        "rule": "r",
        "note": HOSTILE,
        "why": HOSTILE,
    }
    assert (await api.post(PATH, json=entry)).status_code == 201
    assert store.current.exact(sha(1))
    again = await api.post(PATH, json=entry)
    assert (again.status_code, again.json()) == (200, {"imported": 0, "unchanged": 1})
    listed = (await api.get(PATH)).json()
    assert (listed["total"], len(listed["overrides"])) == (1, 1)
    shown = listed["overrides"][0]
    assert shown.items() >= {"who": "ann", "note": HOSTILE, "pdq": LOOK.hex()}.items()
    assert shown["time"].endswith("+00:00")
    removed = await api.request("DELETE", f"{PATH}/{shown['id']}", json={"why": "mistaken"})
    assert removed.json()["removed"] == shown
    gone = await api.delete(f"{PATH}/{shown['id']}", params={"why": "mistaken"})
    assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
    changes = (await api.get(f"{PATH}/changes")).json()["changes"]
    assert [(item["what"], item["who"], item["why"]) for item in changes] == [
        ("removed", "ann", "mistaken"),
        ("added", "ann", HOSTILE),
    ]
    assert changes[0]["override"]["id"] == shown["id"]
    older = await api.get(f"{PATH}/changes", params={"before": changes[0]["seq"], "limit": 5})
    assert older.json()["changes"] == changes[1:]


async def test_pages_of_the_list(api: httpx.AsyncClient) -> None:
    lines = "\n".join(sha(number).hex() for number in range(7))
    await api.post(
        f"{PATH}/import?format=lines&kind=sha256&action=deny&note=list&why=list", content=lines
    )
    page = (await api.get(PATH, params={"offset": 2, "limit": 3})).json()
    assert page["total"] == 7
    assert [entry["sha256"] for entry in page["overrides"]] == [sha(n).hex() for n in (4, 3, 2)]
    found = (await api.get(PATH, params={"search": sha(5).hex()[-6:]})).json()
    assert found["total"] == 1


async def test_a_list_with_broken_lines(store: OverrideStore, api: httpx.AsyncClient) -> None:
    content = f"sha256:{sha(1).hex()}\nnonsense\n{HOSTILE}\npdq:{LOOK.hex()}\n".encode() + b"\xff\n"
    url = f"{PATH}/import?format=lines&action=deny&why=from+a+friend&note=friend"
    answer = await api.post(url, content=content)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["imported"], body["unchanged"]) == (2, 0)
    assert [error["line"] for error in body["errors"]] == [2, 3, 5]
    assert all(error["reason"] for error in body["errors"])
    assert {entry.note for entry in store.current.entries} == {"friend"}
    again = (await api.post(url, content=content)).json()
    assert (again["imported"], again["unchanged"], len(again["errors"])) == (0, 2, 3)


async def test_a_list_of_which_nothing_can_be_read(api: httpx.AsyncClient) -> None:
    url = f"{PATH}/import?format=lines&action=deny&why=list"
    answer = await api.post(url, content="one\ntwo\n")
    assert answer.status_code == 400
    assert [error["line"] for error in answer.json()["errors"]] == [1, 2]
    no_header = await api.post(f"{PATH}/import?format=csv&why=list", content="one\ntwo\n")
    assert (no_header.status_code, "first line" in no_header.json()["message"]) == (400, True)
    nothing = await api.post(url, content="# nothing\n")
    assert (nothing.status_code, nothing.json()["imported"]) == (200, 0)


@pytest.mark.parametrize("format_", ["csv", "lines", "hma"])
async def test_what_is_exported_can_be_imported(
    tmp_path: Path, store: OverrideStore, api: httpx.AsyncClient, format_: str
) -> None:
    for entry in (
        {"action": "deny", "sha256": sha(1).hex(), "note": "=cmd()"},
        {"action": "deny", "pdq": LOOK.hex()},
        {"action": "allow", "pdq": sha(9).hex(), "rule": "r"},
    ):
        assert (await api.post(PATH, json={**entry, "why": "seen"})).status_code == 201
    exported = await api.get(f"{PATH}/export", params={"format": format_})
    assert exported.headers["content-disposition"].startswith("attachment")
    async with (
        running_store(sqlite_url(tmp_path / "other.sqlite")) as other,
        client_of(other) as there,
    ):
        answer = await there.post(
            f"{PATH}/import?format={format_}&action=deny&why=copied", content=exported.content
        )
        assert answer.json()["errors"] == []
        copied = {(e.action, e.sha256, e.pdq, e.rule, e.note) for e in other.current.entries}
    original = {(e.action, e.sha256, e.pdq, e.rule, e.note) for e in store.current.entries}
    if format_ == "csv":
        assert copied == original
    else:
        denied = {item[:4] for item in original if item[0] == "deny"}
        lookalikes = {item for item in denied if item[2] is not None}
        assert {item[:4] for item in copied} == (denied if format_ == "lines" else lookalikes)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"action": 1}', "action must be text"),
        (b'{"acton": "deny"}', "unknown field 'acton'"),
        (b'{"action": "perhaps"}', "action is one of allow, deny"),
        (b'{"action": "deny", "why": "x"}', "needs a SHA-256 or a PDQ hash"),
        (b'{"action": "deny", "sha256": "xyz", "why": "x"}', "64 hexadecimal digits"),
        (json.dumps({"action": "deny", "sha256": sha(1).hex()}).encode(), "say why"),
        (
            json.dumps({"action": "deny", "sha256": sha(1).hex(), "why": "a\0b"}).encode(),
            "control characters",
        ),
        (
            json.dumps({"action": "deny", "sha256": sha(1).hex(), "why": "\ud800"}).encode(),
            "control characters",
        ),
    ],
)
async def test_what_can_not_be_added(
    store: OverrideStore, api: httpx.AsyncClient, body: bytes, reason: str
) -> None:
    answer = await api.post(PATH, content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert reason in answer.json()["message"]
    assert len(store.current) == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "?limit=-1", 400),
        ("GET", "?offset=1e3", 400),
        ("GET", "?offset=" + "9" * 30, 400),
        ("GET", "?order=id", 400),
        ("GET", "/changes?before=x", 400),
        ("GET", "/export?format=exe", 400),
        ("GET", "/export?format=lines&kind=md5", 400),
        ("POST", "/import?why=x", 400),
        ("POST", "/import?format=lines&action=drop&why=x", 400),
        ("DELETE", "/%27%20OR%201=1?why=x", 404),
        ("DELETE", "/%00?why=x", 404),
        ("DELETE", "/x?why=", 400),
        ("DELETE", "/x", 400),
    ],
)
async def test_bad_requests(api: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await api.request(method, PATH + path)
    assert answer.status_code == status
    assert answer.json()["message"]


async def test_bodies_are_bounded(api: httpx.AsyncClient) -> None:
    large = await api.post(PATH, content=b" " * 70_000)
    assert large.status_code == 413
    too_long = await api.post(
        f"{PATH}/import?format=lines&action=deny&why=x", content=b"\n" * (33 * 1024 * 1024)
    )
    assert too_long.status_code == 413


async def test_nothing_is_changed_by_nobody(store: OverrideStore) -> None:
    async with client_of(store, who="") as api:
        entry = {"action": "deny", "sha256": sha(1).hex(), "why": "x"}
        assert (await api.post(PATH, json=entry)).status_code == 401
        assert len(store.current) == 0


async def test_without_a_database_nothing_is_changed() -> None:
    store = OverrideStore(NoLedger(), Metrics())
    await store.start()
    async with client_of(store) as api:
        entry = {"action": "deny", "sha256": sha(1).hex(), "why": "x"}
        answer = await api.post(PATH, json=entry)
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert (await api.get(f"{PATH}/changes")).status_code == 503
        assert (await api.get(PATH)).json()["total"] == 0


async def test_a_list_that_may_lack_something_is_not_exported(
    store: OverrideStore, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "trouble", lambda: "the database is away")
    answer = await api.get(f"{PATH}/export")
    assert answer.status_code == 503
    assert "the database is away" in answer.json()["message"]
