"""Who may see the admin pages, and what nobody can be made to do there."""

import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route

from gateway.admin.authentication import Authentication, Caller, Refusal
from gateway.admin.failed_attempts import FailedAttempts
from gateway.settings import load_settings
from tests.gateway.admin.admin_port import (
    TOKEN,
    AdminPort,
    admin_port,
    form_token,
    number,
    rejected,
    submit,
)

AWAY = "https://admin.example"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[AdminPort]:
    """An admin port with a token."""
    async with admin_port(tmp_path, token=TOKEN) as running:
        yield running


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def routes(port: AdminPort) -> list[tuple[str, str]]:
    """Method and a path of each route, but for the static files."""
    found = []
    for route in port.app.routes:
        if isinstance(route, Mount):
            continue
        assert isinstance(route, Route)
        path = route.path.replace("{id}", number(1))
        found += [(method, path) for method in route.methods or () if method != "HEAD"]
    return found


OPEN = {("GET", "/metrics"), ("GET", "/livez"), ("GET", "/login")}


async def test_everything_but_metrics_and_the_login_needs_the_token(guarded: AdminPort) -> None:
    for peer in ("127.0.0.1", "8.8.8.8"):
        async with guarded.caller(peer) as caller:
            for method, path in routes(guarded):
                answer = await caller.request(method, path)
                if (method, path) in OPEN:
                    assert answer.status_code == 200
                elif path == "/login":
                    assert answer.status_code in (403, 411)
                else:
                    assert answer.status_code == 401, path
                    assert "www-authenticate" in answer.headers
                    assert number(1) not in answer.text.replace(path, "")
    assert ("POST", "/overrides/add") in routes(guarded)
    assert ("DELETE", f"/api/v1/overrides/{number(1)}") in routes(guarded)
    assert ("GET", "/api/v1/decisions/scores") in routes(guarded)


async def test_the_right_token_opens_and_names_who(guarded: AdminPort) -> None:
    for headers, name in (
        (basic("ada", TOKEN), "ada"),
        (basic("", TOKEN), "admin"),
        (bearer(TOKEN), "api"),
        (bearer(TOKEN) | {"x-admin-name": "cron"}, "cron"),
        (bearer(TOKEN) | {"x-admin-name": "x" * 101}, "api"),
        ({"authorization": f"bEaReR  {TOKEN} "}, "api"),
    ):
        async with guarded.caller("8.8.8.8", AWAY, headers) as caller:
            page = await caller.get("/")
            assert page.status_code == 200
            assert f"as <b>{name}</b>" in page.text


@pytest.mark.parametrize(
    "headers",
    [
        basic("ada", "wrong"),
        basic("ada", TOKEN + " "),
        basic(TOKEN, ""),
        bearer(TOKEN[:-1]),
        bearer(""),
        {"authorization": "Basic !!!"},
        {"authorization": "Basic"},
        {"authorization": "Digest x"},
        {"authorization": ""},
        {"authorization": b"Basic \xff\xfe"},
        {"cookie": "imagesafety_admin=e30=.x.y"},
        {"cookie": "imagesafety_admin=null"},
        {"x-admin-name": "ada"},
    ],
)
async def test_nothing_else_opens(guarded: AdminPort, headers: dict[str, str]) -> None:
    async with guarded.caller() as caller:
        for path in ("/", "/api/v1/overrides"):
            answer = await caller.get(path, headers=headers)
            assert answer.status_code == 401
    content = answer.json()
    assert content["error"] == "not_allowed"


async def test_logging_in_and_out(guarded: AdminPort) -> None:
    async with guarded.caller("8.8.8.8", AWAY) as caller:
        wrong = await submit(caller, "/decisions?cause=policy", "/login", name="ada", token="no")
        assert (wrong.status_code, "not the gateway’s" in wrong.text) == (401, False)
        assert "That is not the gateway&#39;s admin token." in wrong.text
        nameless = await submit(caller, "/", "/login", name=" ", token=TOKEN)
        assert nameless.status_code == 400
        page = await submit(
            caller, "/", "/login", name="ada", token=TOKEN, next="/decisions?cause=policy"
        )
        assert str(page.url) == f"{AWAY}/decisions?cause=policy"
        assert "as <b>ada</b>" in page.text
        assert (await caller.get("/overrides")).status_code == 200
        await submit(caller, "/", "/logout")
        assert (await caller.get("/")).status_code == 401


async def test_the_cookie_is_for_our_pages_only(guarded: AdminPort) -> None:
    for base, secure in ((AWAY, True), ("http://admin.example", False)):
        async with guarded.caller("8.8.8.8", base) as caller:
            shown = await caller.get("/login")
            flags = shown.headers["set-cookie"].lower()
            assert "httponly" in flags
            assert "samesite=strict" in flags
            assert "max-age=43200" in flags
            assert ("secure" in flags) is secure


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "/%0d", "javascript:x"]
)
async def test_a_login_goes_on_to_our_own_pages_only(guarded: AdminPort, target: str) -> None:
    async with guarded.caller("8.8.8.8", AWAY) as caller:
        loaded = await caller.get("/login", params={"next": target})
        assert "evil" not in loaded.text
        data = {"form_token": form_token(loaded), "name": "a", "token": TOKEN, "next": target}
        answer = await caller.post("/login", data=data)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_sessions_hold_for_gateways_with_the_same_token_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with admin_port(tmp_path / "a", token=TOKEN) as one, one.caller() as caller:
        await submit(caller, "/", "/login", name="ada", token=TOKEN)
        cookies = dict(caller.cookies)
    for token, status in ((TOKEN, 200), ("another token, also long", 401)):
        async with (
            admin_port(tmp_path / "b", token=token) as other,
            other.caller() as caller,
        ):
            caller.cookies.update(cookies)
            assert (await caller.get("/")).status_code == status


async def test_no_form_does_anything_without_its_token(port: AdminPort) -> None:
    await port.keep(rejected(1))
    async with port.caller(headers={"sec-fetch-site": "same-origin"}) as caller:
        loaded = await caller.get("/overrides")
        forms = [path for method, path in routes(port) if method == "POST" and "/api/" not in path]
        assert len(forms) == 6
        fields = {"action": "deny", "sha256": "ab" * 32, "why": "x", "name": "x", "token": "x"}
        for path in forms:
            for wrong in ({}, {"form_token": ""}, {"form_token": "x" * 32}):
                answer = await caller.post(path, data=fields | wrong)
                assert answer.status_code == 403
        async with port.caller(headers={"sec-fetch-site": "same-origin"}) as other:
            data = fields | {"form_token": form_token(loaded)}  # of somebody else's session
            assert (await other.post("/overrides/add", data=data)).status_code == 403
        assert not port.overrides.current.entries
        await caller.post("/overrides/add", data=fields | {"form_token": form_token(loaded)})
        assert len(port.overrides.current.entries) == 1


async def test_no_other_page_can_send_our_forms_or_calls(guarded: AdminPort) -> None:
    elsewhere = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    call = {"action": "deny", "sha256": "ab" * 32, "why": "x"}
    async with guarded.caller("8.8.8.8", AWAY) as caller:
        page = await submit(caller, "/", "/login", name="ada", token=TOKEN)
        data = {"form_token": form_token(page), **call}
        refused = await caller.post("/overrides/add", data=data, headers=elsewhere)
        assert refused.status_code == 403
        for headers in (elsewhere, {"origin": "null"}, basic("ada", TOKEN) | elsewhere):
            answer = await caller.post("/api/v1/overrides", json=call, headers=headers)
            assert answer.status_code == 403
        assert not guarded.overrides.current.entries
        # With a bearer token nobody needs to ask where it comes from: no browser sends it unasked.
        free = await caller.post("/api/v1/overrides", json=call, headers=bearer(TOKEN) | elsewhere)
        assert free.status_code == 201
    (entry,) = guarded.overrides.current.entries
    assert entry.who == "api"


async def test_without_a_token_the_machine_itself_may(port: AdminPort) -> None:
    for peer, base in (
        ("127.0.0.1", "http://127.0.0.1:14052"),
        ("127.8.9.1", "http://localhost:14052"),
        ("::1", "http://[::1]:14052"),
        ("::ffff:127.0.0.1", "http://LOCALHOST"),
    ):
        async with port.caller(peer, base) as caller:
            page = await caller.get("/")
            assert page.status_code == 200
            assert "as <b>local</b>" in page.text
            assert (
                "as <b>cron</b>" in (await caller.get("/", headers={"x-admin-name": "cron"})).text
            )


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("8.8.8.8", {}),
        ("192.168.1.7", {}),
        ("8.8.8.8", {"x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {"x-forwarded-for": "8.8.8.8"}),
        ("127.0.0.1", {"forwarded": "for=8.8.8.8"}),
        ("127.0.0.1", {"x-real-ip": "8.8.8.8"}),
        ("127.0.0.1", {"via": "1.1 proxy"}),
        ("127.0.0.1", {"host": "rebound.example:14052"}),
        ("127.0.0.1", {"host": "localhost.evil.example"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}),
        ("127.0.0.1", {"host": "[::1].evil.example"}),
        ("127.0.0.1", {"host": ""}),
    ],
)
async def test_without_a_token_nobody_else_may(
    port: AdminPort, peer: str, headers: dict[str, str]
) -> None:
    async with port.caller(peer) as caller:
        for path in ("/", "/login", "/overrides", "/api/v1/overrides"):
            answer = await caller.get(path, headers=headers)
            assert answer.status_code == 401
            assert "IMAGESAFETY_GATEWAY_ADMIN_TOKEN" in answer.text
        assert (await caller.get("/metrics", headers=headers)).status_code == 200


async def test_behind_a_known_proxy_it_counts_who_is_behind(tmp_path: Path) -> None:
    async with admin_port(tmp_path, "--trusted-proxies", "127.0.0.1/32") as port:
        async with port.caller() as caller:
            for forwarded, status in (
                ("127.0.0.2", 200),
                ("8.8.8.8, 127.0.0.2", 200),
                ("127.0.0.2, 8.8.8.8", 401),
                ("8.8.8.8", 401),
                ("nonsense", 401),
            ):
                headers = {"x-forwarded-for": forwarded}
                assert (await caller.get("/", headers=headers)).status_code == status
            assert (await caller.get("/")).status_code == 401  # the proxy doesn't say for whom
            for name in ("x-real-ip", "forwarded", "via", "x-forwarded-host"):
                assert (await caller.get("/", headers={name: "127.0.0.2"})).status_code == 401
        async with port.caller("127.0.0.3") as caller:
            answer = await caller.get("/", headers={"x-forwarded-for": "127.0.0.2"})
            assert answer.status_code == 401


async def test_programs_on_the_machine_and_not_other_peoples_pages(port: AdminPort) -> None:
    call = {"action": "deny", "sha256": "ab" * 32, "why": "x"}
    simple = '{"action":"deny","sha256":"' + "ab" * 32 + '","why":"x"}'
    async with port.caller() as caller:
        for headers in (
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
            {"content-type": "application/json", "origin": "https://evil.example"},
            {"content-type": "application/json", "sec-fetch-site": "cross-site"},
        ):
            answer = await caller.post("/api/v1/overrides", content=simple, headers=headers)
            assert answer.status_code == 403
        assert not port.overrides.current.entries
        assert (await caller.post("/api/v1/overrides", json=call)).status_code == 201
        loaded = await caller.get("/what-if/effect", headers={"sec-fetch-site": "cross-site"})
        assert loaded.status_code == 403
    (entry,) = port.overrides.current.entries
    assert entry.who == "local"


async def test_a_name_is_enough_on_the_machine_itself(port: AdminPort) -> None:
    async with port.caller() as caller:
        page = await submit(caller, "/login", "/login", name="ada <b>")
        assert "as <b>ada &lt;b&gt;</b>" in page.text


def connection(
    peer: str, headers: Mapping[str, str], session: Mapping[str, object] | None = None
) -> HTTPConnection:
    """A request as an ASGI server describes it."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": raw, "client": (peer, 1), "session": dict(session or {})}
    return HTTPConnection(scope)


def test_many_wrong_tokens_lock_an_address_out_for_a_minute() -> None:
    now = [0.0]
    failures = FailedAttempts(clock=lambda: now[0])
    guard = Authentication(TOKEN, (), failures)

    def answer(peer: str, token: str) -> int:
        found = guard.identify(connection(peer, bearer(token)))
        return found.status if isinstance(found, Refusal) else 200

    assert [answer("8.8.8.8", "wrong") for _ in range(12)] == [401] * 10 + [429] * 2
    assert answer("8.8.8.8", TOKEN) == 429  # or it would tell which one is right
    assert answer("9.9.9.9", TOKEN) == 200
    assert [answer(f"2001:db8::{n:x}", "wrong") for n in range(11)] == [401] * 10 + [429]
    now[0] = 61
    assert answer("8.8.8.8", TOKEN) == 200


def test_a_forged_address_does_not_spread_the_attempts() -> None:
    guard = Authentication(TOKEN, load_settings(["--trusted-proxies", "10.0.0.0/8"]).proxies)
    for n in range(12):
        headers = bearer("wrong") | {"x-forwarded-for": f"1.2.3.{n}"}
        found = guard.identify(connection("8.8.8.8", headers))
    assert isinstance(found, Refusal)
    assert found.status == 429
    headers = bearer(TOKEN) | {"x-forwarded-for": "1.2.3.4"}
    assert isinstance(guard.identify(connection("10.0.0.1", headers)), Caller)


def test_a_session_ends_after_twelve_hours() -> None:
    guard = Authentication(TOKEN)
    for since, kind in ((1e12, Caller), (0.0, Refusal)):
        found = guard.identify(connection("8.8.8.8", {}, {"who": "ada", "since": since}))
        assert isinstance(found, kind)


def test_an_old_protocol_may_be_a_proxy_that_does_not_say_for_whom() -> None:
    headers = {"host": "127.0.0.1:14052"}
    here = connection("127.0.0.1", headers)
    assert isinstance(Authentication("").identify(here), Caller)
    here.scope["http_version"] = "1.0"
    assert isinstance(Authentication("").identify(here), Refusal)


async def test_a_form_too_large_is_not_read(port: AdminPort) -> None:
    async with port.caller(headers={"sec-fetch-site": "same-origin"}) as caller:
        headers = {"content-length": str(10**9), "content-type": "multipart/form-data; boundary=x"}
        assert (await caller.post("/overrides/import", headers=headers)).status_code == 413
        broken = {"content-type": "multipart/form-data; boundary=x"}
        answer = await caller.post("/overrides/import", content=b"--y\r\n\r\n", headers=broken)
        assert answer.status_code in (400, 403)
        many = "&".join(f"a{n}=1" for n in range(5000))
        urlencoded = {"content-type": "application/x-www-form-urlencoded"}
        answer = await caller.post("/overrides/add", content=many, headers=urlencoded)
        assert answer.status_code in (400, 403)


async def test_a_caller_of_unix_sockets_is_nobody(port: AdminPort) -> None:
    transport = httpx.ASGITransport(port.app, client=None)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as caller:
        assert (await caller.get("/")).status_code == 401
