"""Recorded similarities, from a real ledger through HTTP."""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from sqlalchemy import Connection, insert
from starlette.applications import Starlette

from gateway.admin.recorded_rows import PAGE_ROWS
from gateway.admin.replay_api import replay_routes
from gateway.ledger.ledger import AnyLedger, Ledger, LedgerUnavailableError, NoLedger
from gateway.ledger.record import ScoredBy
from gateway.ledger.rows import row_of
from gateway.ledger.tables import decisions, policies
from gateway.metrics import Metrics
from gateway.overrides.matching import Override, OverrideAction, OverrideSet
from imagesafety.command import main
from imagesafety.policy import Action, Mode
from imagesafety.policy_file import parse_policy
from imagesafety.recorded import Recorded, RecordedStream, RecordedStreamError
from imagesafety.scores import PerceptualHash, View
from imagesafety.verdict import judge_image
from tests.gateway.postgres import Postgres, postgres  # noqa: F401
from tests.gateway.records import record
from tests.serving import serving

T = TypeVar("T")
POLICY = parse_policy("""
model = "demo"
concepts = { a = ["an a"], b = ["a b"] }
groups.g.thresholds = { a = 0.5, b = 0.5 }
[[rules]]
name = "stop"
all = ["g"]
""")
BY = ScoredBy(POLICY.digest, POLICY.concepts_digest, "demo", "sha256:0")
NOW = time.time_ns() // 1000
DAY = 86400 * 10**6


def views(*similarities: tuple[float, ...]) -> tuple[View, ...]:
    return tuple(View(i, 0.0, (0, 0, 1, 1), values) for i, values in enumerate(similarities))


def row(**changes: Any) -> dict[str, object]:
    """An accepted upload with scores of just now, with changes."""
    base = {"id": secrets.token_hex(16), "at": NOW, "scored_by": BY, "views": views((0.25, 0.5))}
    return row_of(record(**(base | changes)))


def entry(action: str = "allow", **changes: Any) -> Override:
    nothing = Override(secrets.token_hex(16), OverrideAction(action), *(None,) * 3, "", "", NOW)
    return replace(nothing, **changes)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@contextlib.asynccontextmanager
async def a_ledger(
    folder: Path,
    rows: list[dict[str, object]],
    database: str = "",
) -> AsyncIterator[Ledger]:
    """A ledger with these decisions, and the policy; in SQLite if not said."""
    url = database or f"sqlite:///{folder / 'ledger.sqlite'}"
    ledger = Ledger(url, folder / "spool", Metrics(), retention_days=36500)
    await ledger.start()
    text = {"digest": POLICY.digest, "text": POLICY.text, "first_used": NOW}
    try:
        await ledger.transaction(lambda connection: connection.execute(insert(policies), [text]))
        if rows:
            await ledger.transaction(lambda connection: connection.execute(insert(decisions), rows))
        yield ledger
    finally:
        await ledger.close()


@dataclass(frozen=True)
class Overrides:
    """The overrides of today."""

    current: OverrideSet = field(default_factory=OverrideSet)


async def asked(
    ledger: AnyLedger, query: str = "", *entries: Override, accepts: bool = False
) -> httpx.Response:
    overrides = Overrides(OverrideSet(entries))
    app = Starlette(routes=replay_routes(ledger, overrides, accepts_undecodable=accepts))
    async with serving(app) as url, httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{url}/api/v1/decisions/scores{query}")


def read(response: httpx.Response) -> tuple[list[Recorded], RecordedStream]:
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    stream = RecordedStream(response.content.splitlines(keepends=True))
    return list(stream), stream


async def test_decisions_come_with_all_that_replay_needs(tmp_path: Path, database: str) -> None:
    sha256 = bytes(range(32))
    rejected = row(
        sha256=sha256,
        client="lemmy",
        client_mode=Mode.SHADOW,
        decision="accept",
        cause="repeat",
        shadow=Action.REJECT,
        shadow_rule="stop",
        rule="watch",
        flagged=True,
        partial="cut off",
        views=views((0.25, -0.5), (1.0, 0.1)),
    )
    denied = entry(action="deny", sha256=sha256)
    async with a_ledger(tmp_path, [rejected], database) as ledger:
        (found,), stream = read(await asked(ledger, "", denied, accepts=True))
    tenth = 0.10000000149011612  # as float32 has it
    assert found == Recorded(
        id=str(rejected["id"]),
        at=NOW,
        client="lemmy",
        client_mode=Mode.SHADOW,
        sha256=sha256.hex(),
        decision="accept",
        cause="repeat",
        model="demo",
        weights_digest="sha256:0",
        policy_digest=POLICY.digest,
        similarities=((0.25, -0.5), (1.0, tenth)),
        rule="watch",
        flagged=True,
        shadow=Action.REJECT,
        shadow_rule="stop",
        partial="cut off",
        override_now="deny",
    )
    assert stream.policies == {POLICY.digest: POLICY}
    assert stream.accepts_undecodable
    assert (stream.last, stream.more) == (1, False)


async def test_what_has_no_scores_or_is_older_is_left_out(tmp_path: Path, database: str) -> None:
    rows = [row(views=()), row(at=NOW - 8 * DAY), row(at=NOW - 6 * DAY), row(at=NOW - DAY // 2)]
    ids = [each["id"] for each in rows]
    async with a_ledger(tmp_path, rows, database=database) as ledger:
        for query, expected in (
            ("", ids[2:]),
            ("?since=7d", ids[2:]),
            ("?since=1d", ids[3:]),
            ("?since=2w", ids[1:]),
            (f"?since={NOW - 6 * DAY}", ids[2:]),
            (f"?since={NOW + DAY}", []),
            ("?since=2w&after=2", ids[2:]),
            ("?since=2w&after=400", []),
        ):
            found, _ = read(await asked(ledger, query))
            assert [each.id for each in found] == expected, query


async def test_a_clock_that_jumped_back_hides_nothing(tmp_path: Path) -> None:
    rows = [row(at=NOW - 10 * DAY), row(), row(at=NOW - 9 * DAY), row(at=NOW - DAY)]
    async with a_ledger(tmp_path, rows) as ledger:
        found, _ = read(await asked(ledger))
    assert [each.id for each in found] == [rows[1]["id"], rows[3]["id"]]


@pytest.mark.parametrize("count", [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS])
async def test_all_pages_come_in_order_and_policies_once(tmp_path: Path, count: int) -> None:
    rows = [row() for _ in range(count)]
    async with a_ledger(tmp_path, rows) as ledger:
        response = await asked(ledger)
    found, stream = read(response)
    assert [each.id for each in found] == [each["id"] for each in rows]
    assert not stream.more
    kinds = [next(iter(json.loads(line))) for line in response.content.splitlines()]
    assert kinds.count("policy") == min(1, count)
    assert kinds[0] == "start"
    assert kinds[-1] == "end"


async def test_a_limit_and_going_on_behind_it(tmp_path: Path, database: str) -> None:
    rows = [row() for _ in range(PAGE_ROWS + 5)]
    async with a_ledger(tmp_path, rows, database=database) as ledger:
        ids, after, more = [], 0, True
        while more:
            found, stream = read(await asked(ledger, f"?limit={PAGE_ROWS - 1}&after={after}"))
            assert len(found) <= PAGE_ROWS - 1
            ids += [each.id for each in found]
            after, more = stream.last, stream.more
    assert ids == [each["id"] for each in rows]


LOOK = PerceptualHash(bytes(32), 100)


async def test_which_overrides_there_were_and_are(tmp_path: Path, database: str) -> None:
    sha256, other = secrets.token_bytes(32), secrets.token_bytes(32)
    exact = entry(sha256=sha256)
    denied = entry("deny", sha256=other)
    alike = entry(pdq=bytes(32), rule="stop", at=NOW - DAY)
    later = entry(pdq=bytes(32), rule="halt", at=NOW + DAY)
    rows = [
        row(sha256=sha256, cause="override", override=exact.id),
        row(sha256=other, cause="override", override=denied.id, decision="reject"),
        row(cause="override", override=alike.id, perceptual_hashes=(LOOK,)),
        row(cause="override", override=alike.id),  # the hashes are gone; it decided all the same
        row(perceptual_hashes=(LOOK,)),  # its rule did not hold
        row(perceptual_hashes=(replace(LOOK, pdq=bytes([255] * 32)),)),
        row(cause="override", override="removed"),
        row(sha256=None),
    ]
    async with a_ledger(tmp_path, rows, database) as ledger:
        found, _ = read(await asked(ledger, "", exact, denied, alike, later))
    assert [(each.override_stays, each.override_gone) for each in found] == [
        *[(True, False)] * 2,
        *[(False, False)] * 4,
        (False, True),
        (False, False),
    ]
    nothing = ((), None, ())
    assert [(each.excepted, each.override_now, each.allowed_now) for each in found] == [
        ((), "allow", ()),
        ((), "deny", ()),
        (("stop",), None, ("halt", "stop")),
        (("stop",), None, ()),
        (("stop",), None, ("halt", "stop")),
        *[nothing] * 3,
    ]


async def test_what_looks_like_something_denied_since_is_known(tmp_path: Path) -> None:
    near = replace(LOOK, pdq=bytes(31) + b"\x07")
    rows = [row(perceptual_hashes=(near,)), row(perceptual_hashes=())]
    denied = entry("deny", pdq=bytes(32))
    async with a_ledger(tmp_path, rows) as ledger:
        found, _ = read(await asked(ledger, "", denied))
    assert [each.override_now for each in found] == ["deny", None]
    assert not any(each.override_stays for each in found)


async def test_a_row_with_broken_views_costs_only_itself(tmp_path: Path) -> None:
    rows = [row() | {"views": b"\x01nonsense"}, row()]
    async with a_ledger(tmp_path, rows) as ledger:
        found, _ = read(await asked(ledger))
    assert [len(each.similarities) for each in found] == [0, 1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?since=7y", "no time to look back"),
        ("?since=", "no time to look back"),
        ("?since='; drop table decisions; --", "no time to look back"),
        ("?after=-1", "after must be a whole number"),
        ("?after=" + "9" * 30, "after must be a whole number"),
        ("?limit=all", "limit must be a whole number"),
        ("?limit=0", "limit must be 1 or more"),
        ("?sinse=7d", "unknown parameter 'sinse'"),
    ],
)
async def test_what_cannot_be_meant(query: str, message: str) -> None:
    response = await asked(NoLedger(), query)
    assert response.status_code == 400
    assert message in response.json()["message"]


class Forgetful(NoLedger):
    """Another ledger, for so many transactions; then its database is gone."""

    def __init__(self, ledger: Ledger, transactions: int) -> None:
        self._ledger, self._left = ledger, transactions

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        self._left -= 1
        if self._left < 0:
            raise LedgerUnavailableError("the disk is on its way to the workshop")
        return await self._ledger.transaction(work)


async def test_a_database_that_goes_away_meanwhile_is_no_end_of_the_list(tmp_path: Path) -> None:
    async with a_ledger(tmp_path, [row() for _ in range(3 * PAGE_ROWS)]) as ledger:
        response = await asked(Forgetful(ledger, 2))
        assert (await asked(Forgetful(ledger, 0))).status_code == 503
    stream = RecordedStream(response.content.splitlines(keepends=True))
    with pytest.raises(RecordedStreamError, match="the disk is on its way"):
        list(stream)


async def test_the_command_agrees_with_judging_the_recorded_scores_anew(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = parse_policy(POLICY.text.replace("a = 0.5", "a = 0.625"))
    (tmp_path / "new.toml").write_text(new.text)
    steps, rows, flipped = random.Random(1), [], set()
    for number in range(1000):
        # Values that float32 has exactly.
        scores = [(steps.randrange(64) / 64, steps.randrange(33) / 64) for _ in range(2)]
        before, after = judge_image(POLICY, scores).rejects, judge_image(new, scores).rejects
        sha256 = number.to_bytes(32, "big")
        rows.append(
            row(
                sha256=sha256,
                views=views(*scores),
                decision="reject" if before else "accept",
                rule="stop" if before else None,
            )
        )
        if before is not after:
            flipped.add((sha256.hex(), "reject" if before else "accept"))
    async with (
        a_ledger(tmp_path, rows, database=database) as ledger,
        serving(Starlette(routes=replay_routes(ledger, Overrides()))) as url,
    ):
        command = ["policy", "replay", str(tmp_path / "new.toml"), "--admin", url, "--json"]
        assert await asyncio.to_thread(main, command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["decisions"], report["comparable"]) == (1000, 1000)
    assert len(flipped) > 10
    assert {(flip["sha256"], flip["from"]) for flip in report["flips"]} == flipped


async def test_without_a_ledger_it_says_so() -> None:
    response = await asked(NoLedger())
    assert response.status_code == 503
    assert "no ledger" in response.json()["message"]
