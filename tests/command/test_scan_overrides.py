"""--overrides of scan: what it may be, and that actions need one."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesafety.admin_client import AdminApiError
from imagesafety.command import main
from imagesafety.command.scan_overrides import overrides_of

CSV = f"sha256,pdq,action,rule,note\n{'ab' * 32},,allow,,fine\n"
TOKEN = "a token of sixteen"


class _Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        known = self.path == "/api/v1/overrides/export?format=csv"
        self.send_response(200 if allowed and known else 401)
        self.send_header("Content-Type", "text/csv; charset=utf-8")
        self.send_header("Content-Length", str(len(CSV)))
        self.end_headers()
        self.wfile.write(CSV.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_gateway_is_asked_each_time(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGESAFETY_ADMIN_TOKEN", TOKEN)
    load = overrides_of(gateway, acts=True)
    [entry] = load()
    assert (entry.sha256, entry.denies) == (b"\xab" * 32, False)
    monkeypatch.setenv("IMAGESAFETY_ADMIN_TOKEN", "another")
    with pytest.raises(AdminApiError, match="refuses the admin token"):
        overrides_of(gateway, acts=True)()


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(CSV)
    load = overrides_of(str(file), acts=True)
    assert len(load()) == 1
    file.write_text(CSV.splitlines()[0])
    assert load() == ()
    assert overrides_of("none", acts=True)() == ()
    assert overrides_of(None, acts=False)() == ()


def test_an_action_needs_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.png").write_bytes(b"x")
    code = main(["scan", str(tmp_path / "store"), "--action", "delete", "--yes"])
    errors = capsys.readouterr().err
    assert code == 2
    assert "--overrides" in errors
    assert len(errors.splitlines()) == 1
