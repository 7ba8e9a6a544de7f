"""A gateway that was never called warns once; one that was, or may have been, does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.first_call import FirstCall, NoUploads, Refused
from gateway.ledger.database import sqlite_url
from gateway.ledger.ledger import Ledger, NoLedger
from tests.gateway.ledger.records import a_record, running_ledger, soon

WORDS = "no upload has ever come to this gateway"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with running_ledger(sqlite_url(tmp_path / "ledger.db"), tmp_path / "spool") as ledger:
        yield ledger


async def warnings(first_call: FirstCall, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that are logged when the time is up."""
    async with asyncio.timeout(30):
        await first_call.run()
    return [record.getMessage() for record in caplog.records if record.name == "gateway"]


async def test_the_warning_names_the_first_cause_to_look_at(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for one in (FirstCall(ledger, patience=0), FirstCall(NoLedger(), patience=0)):
        caplog.clear()
        [warning] = await warnings(one, caplog)
        assert warning.startswith(WORDS)
        for words in ("EXTERNAL_VALIDATION", "address and not its name", "http-client-error"):
            assert words in warning
        assert await one.missing() == NoUploads(None)


async def test_an_upload_now_or_on_record_is_enough(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    first_call = FirstCall(ledger, patience=0)
    first_call.note_upload()
    assert await warnings(first_call, caplog) == []
    assert await first_call.missing() is None
    assert await FirstCall(ledger).missing() == NoUploads(None)
    await ledger.record(a_record(), until=soon())
    of_another_run = FirstCall(ledger, patience=0)
    assert await warnings(of_another_run, caplog) == []
    assert await of_another_run.missing() is None


async def test_a_refused_call_is_a_call_and_is_reported(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    first_call = FirstCall(ledger, patience=0)
    first_call.note_refusal(415, "text/plain is not scanned", "curl")
    first_call.note_refusal(401, "this client may not ask here", "pict-rs 0.5.25")
    assert await warnings(first_call, caplog) == []
    refused = Refused(2, 401, "this client may not ask here", "pict-rs 0.5.25")
    assert await first_call.missing() == NoUploads(refused)
    first_call.note_upload()
    assert await first_call.missing() is None


async def test_while_nobody_knows_there_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_ledger(sqlite_url(tmp_path / "ledger.db"), tmp_path / "spool") as ledger:
        pass  # and is closed
    running = asyncio.create_task(FirstCall(ledger, patience=0).run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert WORDS not in caplog.text
