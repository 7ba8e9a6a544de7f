"""Files that were accepted while inference was down are scanned later, in each server."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import Service, free_port, gateway, wait_until
from tests.fake_pict_rs import API_KEY
from tests.media import drawn, file_of
from tests.real_pict_rs.conftest import decisions
from tests.real_pict_rs.servers import Kind, pict_rs

TYPES = ("image/png", "image/jpeg", "image/gif", "video/mp4")


def test_what_came_while_inference_was_down_is_rescanned_and_purged_if_it_is_rejected(
    any_kind: Kind, database: str, scoring: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    nobody, port = f"127.0.0.1:{free_port()}", free_port()
    flags = (
        *("--pict-rs", f"http://127.0.0.1:{port}", "--pict-rs-api-key", API_KEY),
        *("--on-late-reject", "purge"),
    )
    with gateway(nobody, *flags, ready=False, data_folder=folder) as down:
        validator = f"http://{down.address}/api/v1/scan/IPADDR"
        with pict_rs(any_kind, tmp_path, validator, port=port, database=database) as server:
            bad = [server.stored(file_of(drawn(("red", "triangle")), kind), kind) for kind in TYPES]
            good = server.stored(file_of(drawn(("blue", "circle")), "image/png"))
            assert all(server.has(alias) for alias in (*bad, good))
            assert [row["rescan"] for row in decisions(folder)] == ["pending"] * (len(TYPES) + 1)
            down.stop()
            with gateway(scoring.address, *flags, data_folder=folder) as up:
                wait_until(
                    lambda: len(decisions(folder, rescan="scanned")) == len(TYPES) + 1,
                    f"rescans: {up.output()}",
                )
            wait_until(lambda: not any(server.has(alias) for alias in bad), "purges")
            assert {server.original(alias).status_code for alias in bad} == {404}
            assert server.has(good)
            assert server.aliases() == [good]
