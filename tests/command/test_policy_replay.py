"""`imagesafety policy replay`, against a gateway's admin API that a real server plays."""

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from imagesafety.command import main
from imagesafety.policy import Mode
from imagesafety.policy_file import parse_policy
from imagesafety.recorded import (
    MEDIA_TYPE,
    Recorded,
    decision_line,
    end_line,
    policy_line,
    start_line,
)
from tests.e2e.processes import free_port

OLD = """
model = "demo"
concepts = { a = ["an a"] }
groups.g.thresholds = { a = 0.5 }
[[rules]]
name = "stop"
all = ["g"]
"""
POLICY = parse_policy(OLD)
TOKEN = "a-token-of-the-admin"
REJECTED = Recorded(
    id="0" * 32,
    at=0,
    client="lemmy",
    client_mode=Mode.ENFORCE,
    sha256="0" * 64,
    decision="reject",
    cause="policy",
    model="demo",
    weights_digest="sha256:0",
    policy_digest=POLICY.digest,
    similarities=((0.6,),),
    rule="stop",
)
ALLOWED = replace(REJECTED, id="1" * 32, sha256="1" * 64, client="mbin", override_now="allow")
START = start_line(accepts_undecodable=False)
END = end_line(last=9, more=False)


def lines_of(*items: Recorded) -> list[bytes]:
    decisions = [decision_line(item) for item in items]
    return [START, policy_line(POLICY.digest, OLD), *decisions, END]


@dataclass
class Gateway:
    """Answers as it is told, and remembers what it was asked."""

    url: str = ""
    lines: Sequence[bytes] = ()
    response: Response | None = None
    asked: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.asked.append(request)
        if self.response is not None:
            return self.response
        if request.headers.get("authorization") not in (None, f"Bearer {TOKEN}"):
            return JSONResponse({"error": "not the token"}, 401)

        async def body() -> AsyncIterator[bytes]:
            for line in self.lines:
                yield line

        return StreamingResponse(body(), media_type=MEDIA_TYPE)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A server in a thread, since the command waits for it."""
    served = Gateway()
    app = Starlette(routes=[Route("/api/v1/decisions/scores", served.answer)])
    port = free_port()
    config = uvicorn.Config(
        app, port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=0
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    served.url = f"http://127.0.0.1:{port}"
    yield served
    server.should_exit = True
    thread.join()


@pytest.fixture
def new(tmp_path: Path) -> str:
    """A policy file with a higher threshold."""
    path = tmp_path / "new.toml"
    path.write_text(OLD.replace("0.5", "0.7"))
    return str(path)


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGESAFETY_ADMIN_TOKEN", raising=False)
    # What the environment says of proxies is not for a gateway.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


def test_the_report(gateway: Gateway, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(REJECTED, policy_digest="unknown")
    stays = replace(REJECTED, cause="override", override_stays=True)
    gateway.lines = lines_of(REJECTED, REJECTED, ALLOWED, other, stays)
    assert main(["policy", "replay", new, "--admin", gateway.url]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "5 decisions with scores since 7d, 4 comparable",
        "  1 not comparable: made by a policy whose text is missing, or can't be read now",
        "  1 were decided by an override, which stays",
        "3 would flip, of 2 different files",
        "  1 of them an override has corrected already",
        "  0 of them an override forbids, which stays in force",
        "",
        "reject → accept: 3",
        "  by rule    stop 3",
        "  by client  lemmy 2, mbin 1",
        f"  {'0' * 64}  2×, last {'0' * 32}, stop",
        f"  {'1' * 64}  decision {'1' * 32}, stop, corrected",
    ]


def test_json_has_every_flip(
    gateway: Gateway, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.lines = lines_of(*[REJECTED] * 30, ALLOWED)
    assert main(["policy", "replay", new, "--admin", gateway.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["decisions"], report["comparable"]) == (31, 31)
    assert report["corrected_by_override"] == 1
    assert len(report["flips"]) == 31
    assert report["flips"][30]["sha256"] == "1" * 64
    (change,) = report["changes"]
    assert (change["from"], change["to"], change["decisions"]) == ("reject", "accept", 31)


def test_a_long_list_is_cut_unless_all_of_it_is_wanted(
    gateway: Gateway, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.lines = lines_of(*(replace(REJECTED, sha256=f"{i:064x}") for i in range(50)))
    assert main(["policy", "replay", new, "--admin", gateway.url]) == 0
    short = capsys.readouterr().out
    assert short.count("decision 000") == 20
    assert "and 30 more files: --all lists them" in short
    assert main(["policy", "replay", new, "--admin", gateway.url, "--all"]) == 0
    assert capsys.readouterr().out.count("decision 000") == 50


def test_nothing_flips(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.lines = lines_of()
    assert main(["policy", "replay", "demo", "--admin", gateway.url, "--since", "4w"]) == 0
    assert "no decision would flip" in capsys.readouterr().out
    (request,) = gateway.asked
    assert request.query_params["since"] == "4w"
    assert "authorization" not in request.headers


def test_the_token_comes_from_a_file_or_the_environment(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.lines = lines_of()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    file = ["--token-file", str(tmp_path / "token")]
    assert main(["policy", "replay", "demo", "--admin", gateway.url, *file]) == 0
    monkeypatch.setenv("IMAGESAFETY_ADMIN_TOKEN", TOKEN)
    assert main(["policy", "replay", "demo", "--admin", f"{gateway.url}/"]) == 0
    assert [asked.headers["authorization"] for asked in gateway.asked] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.toml"], "no such policy file"),
        (["demo", "--since", "yesterday"], "no time to look back"),
        (["demo", "--since", "7"], "no time to look back"),
        (["demo", "--admin", "127.0.0.1:14052"], "no address of a gateway"),
        (["demo", "--admin", "file:///etc/passwd"], "no address of a gateway"),
        (["demo", "--admin", "http://[::1"], "no address of a gateway"),
        (["demo", "--admin", "http://127.0.0.1:port"], "no address of a gateway"),
        (["demo", "--admin", "http://127.0.0.1 :1"], "no address of a gateway"),
        (["demo", "--admin", "http://me:token@127.0.0.1"], "no address of a gateway"),
        (["demo", "--token-file", "/nowhere/token"], "/nowhere/token"),
        (["demo", "--token-file", "/dev/null"], "no token"),
    ],
)
def test_what_cannot_be_meant(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "replay", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert reason in err


def test_a_token_that_would_be_a_header_of_its_own(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("one\r\nX-Other: two")
    file = ["--token-file", str(tmp_path / "token")]
    assert main(["policy", "replay", "demo", "--admin", gateway.url, *file]) == 2
    assert "characters that no token has" in capsys.readouterr().err
    assert gateway.asked == []


def failing(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command, which has to fail with one line; that."""
    assert main(["policy", "replay", "demo", *arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_where_no_gateway_is(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert f"no gateway answers at {url}" in failing("--admin", url, capsys=capsys)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (JSONResponse({"error": "log in"}, 401), "wants an admin token (--token-file"),
        (JSONResponse({"error": "x", "message": "is\nlocked"}, 503), "answers 503: is locked"),
        (PlainTextResponse("<html>", 500), "answers 500\n"),
        (JSONResponse([], 500), "answers 500\n"),
        (PlainTextResponse("not here", 404), "not the admin address"),
        (RedirectResponse("http://127.0.0.1:9/"), "not the admin address"),
        (PlainTextResponse("hello"), "not the admin address"),
    ],
)
def test_answers_that_are_none(
    gateway: Gateway, response: Response, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.response = response
    assert reason in failing("--admin", gateway.url, capsys=capsys)


def test_a_wrong_token(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGESAFETY_ADMIN_TOKEN", "another-token")
    error = failing("--admin", gateway.url, capsys=capsys)
    assert "refuses the admin token: not the token" in error
    assert "another-token" not in error


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (lines_of(REJECTED)[:-1], "broke off before its end"),
        ([START, b'{"error":"the database is locked"}\n'], "the database is locked"),
        ([START, b"nonsense\n"], "can't be read"),
    ],
)
def test_answers_that_are_not_whole(
    gateway: Gateway, lines: list[bytes], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.lines = lines
    assert reason in failing("--admin", gateway.url, capsys=capsys)
