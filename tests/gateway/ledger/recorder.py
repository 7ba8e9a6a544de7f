"""A process that records as fast as it can until it is killed, and prints what it was told.

python -m tests.gateway.ledger.recorder URL SPOOL_FOLDER CONCURRENCY
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from gateway.ledger.ledger import Stored
from tests.gateway.ledger.records import a_record, running_ledger, soon


async def record_for_ever(url: str, spool: Path, concurrency: int) -> None:
    async with running_ledger(url, spool) as ledger:

        async def client() -> None:
            while True:
                record = a_record()
                if await ledger.record(record, until=soon()) is not Stored.NOWHERE:
                    os.write(1, record.id.encode() + b"\n")

        await asyncio.gather(*(client() for _ in range(concurrency)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(record_for_ever(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
