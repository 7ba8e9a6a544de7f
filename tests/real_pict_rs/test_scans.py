"""`imagesafety scan` over each server and each of its repositories."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.e2e.processes import Service, wait_until
from tests.e2e.test_scan import PURGE, Scan
from tests.fake_pict_rs import API_KEY
from tests.media import drawn, still
from tests.real_pict_rs.servers import Kind, filled_pict_rs

FILES = 310
PURGED_BY_OTHERS = 20
_GOOD = [still(drawn(("blue", "circle"), seed=seed, size=160)) for seed in range(4)]
_BAD = [still(drawn(("red", "triangle"), seed=seed)) for seed in range(3)]


def test_a_scan_that_is_killed_and_meets_purges_of_others_removes_what_is_rejected(
    any_kind: Kind, database: str, scoring: Service, tmp_path: Path
) -> None:
    # Decoders read no further than the end of a picture, so that a number makes each another file.
    files = [
        (_BAD if number % 30 == 0 else _GOOD)[number % 3] + number.to_bytes(4, "big")
        for number in range(FILES)
    ]
    with filled_pict_rs(any_kind, tmp_path, files, database=database) as server:
        aliases = server.filled
        bad = {hashlib.sha256(files[number]).hexdigest() for number in range(0, FILES, 30)}
        harmless = {alias for number, alias in enumerate(aliases) if number % 30}
        scan = Scan(f"pict-rs+{server.url}", scoring.address, tmp_path)
        scan.environment = {"IMAGESAFETY_PICT_RS_API_KEY": API_KEY}
        scan.killed_at(FILES // 10)
        # The oldest ones come last.
        gone = [alias for alias in aliases[: PURGED_BY_OTHERS + 1] if alias in harmless]
        with scan.start("--action", "purge", heard=False) as process:
            for alias in gone:
                assert server.purge(alias).status_code == 200
            _, errors = process.communicate(timeout=300)
        # What pict-rs has purged by half, when it is listed, has no alias.
        problems = scan.lines("problem")
        assert {line["reason"] for line in problems} <= {"UNREADABLE"}, problems
        assert process.returncode == (1 if problems else 0), errors
        wait_until(lambda: not set(gone) & set(server.aliases()), "purges")
        code, output, errors = scan.run("--action", "purge")
        assert code == 0, errors
        assert f"{len(bad)} would be purged" in output
        assert {line["sha256"] for line in scan.lines("hit")} == bad
        assert scan.lines("problem") == problems
        assert set(server.aliases()) == set(aliases) - set(gone)
        code, output, errors = scan.run(*PURGE)
        assert code == 0, errors
        assert f"{len(bad)} purged" in output
        wait_until(lambda: set(server.aliases()) == harmless - set(gone), "purges")
        assert {line["sha256"] for line in scan.lines("action")} == bad
        code, output, errors = scan.run(*PURGE)
        assert (code, "0 hits" in output, "0 looked at now" in output) == (0, True, True), output
