"""The pages show what is recorded, and overrule it."""

import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from gateway.admin import recorded_rows, what_if
from gateway.ledger.record import Rescan
from gateway.ledger.tables import decisions
from gateway.overrides.entries import NewOverride
from gateway.overrides.matching import OverrideAction
from gateway.replicas import Replica
from imagesafety.policy import Action
from imagesafety.scores import View
from tests.e2e.processes import free_port
from tests.gateway.admin.admin_port import (
    POLICY,
    AdminPort,
    admin_port,
    number,
    rejected,
    submit,
    uploaded,
)
from tests.gateway.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AdminPort]:
    """An admin port without a token, over either database."""
    flags: list[str] = []
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        flags = ["--database", server.new_database()]
    async with admin_port(tmp_path, *flags) as running:
        yield running


PAGES = ("/", "/decisions", "/unscanned", "/overrides", "/overrides/history", "/what-if", "/login")


def listed(page: httpx.Response) -> list[int]:
    """Which uploads a list has, in its order."""
    return [
        int(found, 16) for found in re.findall(r'<a href="/decisions/([0-9a-f]{32})">', page.text)
    ]


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_opens_on_an_empty_ledger(local: httpx.AsyncClient, path: str) -> None:
    page = await local.get(path)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert " style=" not in page.text
    assert "<style" not in page.text
    assert not re.search(r"\son[a-z]+=", page.text)


async def test_the_overview_counts_by_outcome(port: AdminPort, local: httpx.AsyncClient) -> None:
    port.components["inference"] = "cannot be reached"
    port.replicas.append(Replica("127.0.0.2:50051", "UNAVAILABLE: it is gone"))
    await port.keep(
        uploaded(1),
        uploaded(2),
        rejected(3),
        uploaded(4, flagged=True, rule="f"),
        uploaded(5, unscanned=True, cause="overload", views=()),
        uploaded(6, shadow=Action.REJECT, shadow_rule="s"),
        uploaded(7, rescan_of=number(5)),  # no upload
    )
    text = (await local.get("/")).text
    assert "6 uploads in 24 hours" in text
    for words, total in (("Accepted", 2), ("Rejected", 1), ("Flagged", 1), ("Unscanned", 1)):
        assert f"{words} per hour: {total} in all" in text
    assert "Shadow per hour: 1 in all" in text
    counted = {"accepted": [2, 1], "rejected": [3], "flagged": [4], "unscanned": [5], "shadow": [6]}
    for name, uploads in counted.items():
        [link] = re.findall(rf'href="(/decisions\?outcome={name}[^"]*)"', text)
        assert listed(await local.get(link.replace("&amp;", "&"))) == uploads
    assert "cannot be reached" in text
    assert re.search(r"127\.0\.0\.1:50051.*>ok<.*pytorch-cpu-float32", text)
    assert re.search(r"127\.0\.0\.2:50051.*>trouble<.*UNAVAILABLE: it is gone", text)
    assert "p99" in text
    assert "has not been looked at to this day" in text
    assert "168" not in text
    assert "6 uploads in 7 days" in (await local.get("/?period=7d")).text
    assert "6 uploads in 24 hours" in (await local.get("/?period=%00nonsense")).text


async def test_the_overview_names_the_programs_that_call(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    new, old = {"user_agent": "pict-rs 0.6.0-rc.6"}, {"user_agent": "pict-rs <0.5.25>"}
    now = time.time_ns() // 1000
    await port.keep(
        uploaded(1, **old, at=now - 200_000_000),
        uploaded(2, **new, at=now - 500_000_000),
        uploaded(3, **new, at=now - 400_000_000, client="lemmy"),
        uploaded(4, **old, at=now - 300_000_000),
        uploaded(5),
        uploaded(6, rescan_of=number(1), user_agent="no caller"),
        uploaded(7, user_agent="years ago", at=now // 2),
    )
    text = (await local.get("/")).text
    card = text[text.index(">Called by<") :]
    card = card[: card.index("</section>")]
    found = re.findall(
        r'class="text">([^<]*)</th>.*>(\d+ minutes ago).*?, (\d+) upl.* (\w+)<', card
    )
    assert found == [
        ("pict-rs &lt;0.5.25&gt;", "3 minutes ago", "2", "IPADDR"),
        ("pict-rs 0.6.0-rc.6", "6 minutes ago", "1", "lemmy"),
        ("pict-rs 0.6.0-rc.6", "8 minutes ago", "1", "IPADDR"),
    ]


async def test_a_page_says_that_nobody_has_called(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    assert "No upload has ever come to this gateway" in (await local.get("/")).text
    port.first_call.note_refusal(401, "<b>may not ask</b>", "<i>")
    text = (await local.get("/")).text
    assert "1 call was refused; the last one with status 401" in text
    assert "&lt;b&gt;may not ask" in text
    await port.keep(uploaded(1))
    assert "No upload has ever come" not in (await local.get("/")).text


async def test_a_decision_names_its_caller(port: AdminPort, local: httpx.AsyncClient) -> None:
    await port.keep(uploaded(1, user_agent="pict-rs <0.6>", reference="01/a2/<b>.png"), uploaded(2))
    text = (await local.get(f"/decisions/{number(1)}")).text
    assert "pict-rs &lt;0.6&gt;" in text
    assert "01/a2/&lt;b&gt;.png" in text
    assert "called by" not in (await local.get(f"/decisions/{number(2)}")).text


async def test_rejects_that_were_allowed_later_are_corrections(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    again = replace(rejected(1), id=number(9), cause="repeat")
    await port.keep(rejected(1), again, rejected(2), uploaded(3))
    assert "No reject of this period has been overruled" in (await local.get("/")).text
    await submit(
        local,
        f"/decisions/{number(1)}",
        f"/decisions/{number(1)}/override",
        action="allow",
        why="x",
    )
    text = (await local.get("/")).text
    assert "<b>2</b> rejected uploads (1 file) are allowed by an override now" in text


async def test_pages_of_decisions_stay_stable_while_rows_come_in(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    await port.keep(*map(uploaded, range(120)))
    first = await local.get("/decisions")
    assert listed(first) == list(range(119, 69, -1))
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older is not None
    await port.keep(*map(uploaded, range(120, 130)))
    second = await local.get(older[1].replace("&amp;", "&"))
    assert listed(second) == list(range(69, 19, -1))
    newer = re.search(r'rel="prev" href="([^"]+)"', second.text)
    assert newer is not None
    back = await local.get(newer[1])
    assert listed(back) == list(range(119, 69, -1))
    newest = re.search(r'rel="prev" href="([^"]+)"', back.text)
    assert newest is not None
    assert listed(await local.get(newest[1])) == list(range(129, 119, -1))


async def test_filters(port: AdminPort, local: httpx.AsyncClient) -> None:
    await port.keep(
        uploaded(1),
        rejected(2, client="lemmy"),
        uploaded(3, flagged=True, rule="f"),
        uploaded(4, unscanned=True, cause="overload", views=(), rescan=Rescan.PENDING),
        uploaded(5, shadow=Action.REJECT, shadow_rule="red-and-triangle"),
        uploaded(6, sha256=bytes.fromhex("abc" + "0" * 61), at=1_700_000_000_000_000),
        uploaded(7, sha256=None, cause="deadline", unscanned=True, views=()),
    )

    async def found(query: str, path: str = "/decisions") -> list[int]:
        page = await local.get(f"{path}?{query}")
        assert page.status_code == 200
        return listed(page)

    assert await found("decision=reject") == [2]
    assert await found("cause=overload") == [4]
    assert await found("rule=red-and-triangle") == [5, 2]
    assert await found("client=lemmy") == [2]
    assert await found("state=flagged") == [3]
    assert await found("state=shadow") == [5]
    assert await found("sha256=ABC") == [6]
    assert await found("sha256=abd") == []
    assert await found(f"sha256={'0' * 63}2") == [2]
    assert await found("until=2023-11-15T00:00") == [6]
    assert await found("since=2023-11-14T00:00&until=2023-11-15T00:00") == [6]
    assert 6 not in await found("since=2023-11-15")
    assert await found("decision=reject&client=IPADDR") == []
    assert await found("", "/unscanned") == [7, 4]
    assert await found("rescan=pending", "/unscanned") == [4]
    assert await found("state=flagged", "/unscanned") == [7, 4]


@pytest.mark.parametrize(
    "query",
    [
        "sha256=xyz",
        f"sha256={'0' * 65}",
        "decision=maybe",
        "cause=%27%20OR%201%3D1",
        "since=yesterday",
        "since=9999-99-99",
        "before=-1",
        "before=99999999999999999999",
        "after=%3Cscript%3E",
        "rule=%00",
        "client=a%0Ab",
        "rescan=never",
    ],
)
async def test_a_filter_that_means_nothing_is_told(local: httpx.AsyncClient, query: str) -> None:
    page = await local.get(f"/decisions?{query}")
    assert page.status_code == 400
    assert "<h1>That can’t be done</h1>" in page.text


async def test_one_decision_with_its_reasons(port: AdminPort, local: httpx.AsyncClient) -> None:
    await port.keep(rejected(1))
    text = (await local.get(f"/decisions/{number(1)}")).text
    assert "Rejected by red-and-triangle" in text
    assert "view 1, which decided" in text
    assert _counted(text, "colour") == "1 of 1 needed, held"
    assert "0.1500" in text
    assert 'class="chosen"' in text
    assert "100 by 80 pixels at 10, 20 of a picture of 300 by 200" in text
    assert POLICY.digest[:16] in text
    other = (await local.get(f"/decisions/{number(1)}?view=0")).text
    assert _counted(other, "colour") == "0 of 1 needed, not held"
    assert "0.0500 before" in other  # adjusted: blue is over its value
    assert "0.0200" in other


def _counted(text: str, group: str) -> str:
    """What the page says of a group."""
    found = re.search(rf">{group}</span>: counts (.*?)</th>", text)
    assert found is not None
    return re.sub("<[^>]*>", "", found[1])


async def test_a_repeat_shows_the_scores_of_the_original(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    again = rejected(2, cause="repeat", repeat_of=number(1), views=(), perceptual_hashes=())
    await port.keep(rejected(1), again)
    text = (await local.get(f"/decisions/{number(2)}")).text
    assert f'href="/decisions/{number(1)}"' in text
    assert "view 1, which decided" in text


async def test_decisions_without_scores_or_policy_open(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    unknown = replace(uploaded(1).scored_by, policy_digest="f" * 64)
    none = uploaded(2, views=(), sha256=None, unscanned=True, cause="deadline", width=0, height=0)
    odd = uploaded(3, views=(View(0, 0.0, (0, 0, 1, 1), (0.1,)),))
    frames = tuple(View(n, n / 10, (0, 0, 300, 200), (0.1, 0.1, 0.1), "white") for n in range(500))
    video = uploaded(4, views=frames, frames=500, total_frames=900, perceptual_hashes=())
    await port.keep(uploaded(1, scored_by=unknown), none, odd, video)
    assert "is not in the ledger" in (await local.get(f"/decisions/{number(1)}")).text
    assert "did not come whole" in (await local.get(f"/decisions/{number(2)}")).text
    assert (await local.get(f"/decisions/{number(3)}")).status_code == 200
    text = (await local.get(f"/decisions/{number(4)}?view=499")).text
    assert "49.90 s" in text
    assert "500 of 900 frames" in text


@pytest.mark.parametrize("id", ["1", "g" * 32, number(77), "%00", "..%2f..%2fetc", "1' OR '1'='1"])
async def test_a_decision_that_is_not_there(local: httpx.AsyncClient, id: str) -> None:  # noqa: A002
    assert (await local.get(f"/decisions/{id}")).status_code == 404


async def test_a_view_that_is_not_there(port: AdminPort, local: httpx.AsyncClient) -> None:
    await port.keep(uploaded(1))
    for view in ("1", "-1", "x", "9" * 30):
        assert (await local.get(f"/decisions/{number(1)}?view={view}")).status_code == 404


async def test_bytes_are_allowed_and_denied(port: AdminPort, local: httpx.AsyncClient) -> None:
    page = f"/decisions/{number(1)}"
    await port.keep(rejected(1))
    done = await submit(local, page, f"{page}/override", action="allow", why="a meme", alike="1")
    assert "From now on these bytes are allowed, and what looks alike." in done.text
    assert "From now on" not in (await local.get(page)).text  # told once
    entry = port.overrides.current.exact((1).to_bytes(32, "big"))
    assert entry is not None
    assert (entry.action, entry.note, entry.who, entry.decision_id) == (
        "allow",
        "a meme",
        "local",
        number(1),
    )
    assert (entry.rule, entry.pdq) == ("red-and-triangle", (1).to_bytes(32, "little"))
    await submit(local, page, f"{page}/override", action="deny", why="not so")
    entry = port.overrides.current.exact((1).to_bytes(32, "big"))
    assert entry is not None
    assert (entry.action, entry.pdq) == ("deny", None)
    refused = await submit(local, page, f"{page}/override", action="allow", why=" ")
    assert "Nothing was changed" in refused.text
    assert (await submit(local, page, f"{page}/override", action="x", why="y")).status_code == 400


async def test_overrides_are_added_found_and_removed(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    sha = "ab" * 32
    added = await submit(
        local, "/overrides", "/overrides/add", action="deny", sha256=sha.upper(), why="known bad"
    )
    assert "The override is in force." in added.text
    (entry,) = port.overrides.current.entries
    assert entry.sha256 == bytes.fromhex(sha)
    assert "known bad" in (await local.get("/overrides?search=KNOWN")).text
    assert "None." in (await local.get("/overrides?search=%25")).text
    bad = await submit(local, "/overrides", "/overrides/add", action="deny", sha256="1", why="kept")
    assert bad.status_code == 400
    assert "A SHA-256 has 64 hexadecimal digits." in bad.text
    assert 'value="kept"' in bad.text
    page = f"/overrides/{entry.id}"
    gone = await submit(local, page, f"{page}/remove", why="a mistake")
    assert "The override is removed" in gone.text
    assert not port.overrides.current.entries
    history = (await local.get("/overrides/history")).text
    assert history.index("removed") < history.index("added")
    assert "a mistake" in history
    assert "is there no more" in (await local.get(page)).text
    assert (await local.get("/overrides/nonsense")).status_code == 404
    assert (
        "Nothing was removed" in (await submit(local, "/overrides", f"{page}/remove", why="x")).text
    )


async def test_a_list_with_broken_lines(port: AdminPort, local: httpx.AsyncClient) -> None:
    token = re.search(r'name="form_token" value="([^"]+)"', (await local.get("/overrides")).text)
    assert token is not None
    content = f"{'11' * 32}\nnonsense <b>\n# comment\n{'22' * 32}\n{'3' * 63}\n".encode()
    fields = {"form_token": token[1], "format": "lines", "action": "deny", "kind": "sha256"}
    page = await local.post(
        "/overrides/import",
        data=fields | {"why": "from a friend"},
        files={"list": ("x.txt", content)},
        headers={"sec-fetch-site": "same-origin"},
    )
    assert page.status_code == 200
    assert "<b>2</b> entries are new" in page.text
    assert "<b>2</b> lines are broken" in page.text
    assert re.findall(r'<th scope="row" class="num">(\d+)</th>', page.text) == ["2", "5"]
    assert len(port.overrides.current.entries) == 2
    exported = await local.get("/overrides/export?format=lines&kind=sha256")
    assert exported.text.split() == ["11" * 32, "22" * 32]
    assert "attachment" in exported.headers["content-disposition"]
    assert (await local.get("/overrides/export?format=exe")).status_code == 400


async def test_pages_of_overrides(port: AdminPort, local: httpx.AsyncClient) -> None:
    entries = [
        NewOverride(OverrideAction.DENY, sha256=n.to_bytes(32, "big"), note=f"note {n}.")
        for n in range(60)
    ]
    await port.overrides.add(entries, who="a", why="b")
    first, second = [(await local.get(f"/overrides?page={n}")).text for n in (1, 2)]
    assert (first.count("note "), second.count("note ")) == (50, 10)
    assert "None." in (await local.get("/overrides?page=99")).text
    assert (await local.get("/overrides?page=99999999")).status_code == 400
    assert (await local.get("/overrides?page=x")).status_code == 400


async def test_what_if(port: AdminPort, local: httpx.AsyncClient) -> None:
    await port.keep(uploaded(1), rejected(2), rejected(3, client="lemmy"))
    still = (await local.get("/what-if")).text
    assert "Nothing is moved" in still
    assert "against 3 recorded decisions" in still
    moved = f"/what-if?policy={POLICY.digest}&g0.t0=0.2"
    text = (await local.get(moved)).text
    assert "<b>2</b> of 3 decisions would have come out otherwise" in text
    assert "thresholds = { red = 0.2 }" in text
    assert sorted(listed(await local.get(moved))) == [2, 3]
    part = (await local.get(moved.replace("/what-if", "/what-if/effect"))).text
    assert "<html" not in part
    assert "<b>2</b> of 3" in part
    assert "None of 3" in (await local.get(f"/what-if?policy={POLICY.digest}&g0.t0=0.11")).text
    for path in ("/what-if", "/what-if/effect"):
        assert "The policy has changed" in (await local.get(f"{path}?policy=old&g0.t0=0.2")).text
    bad = await local.get(f"/what-if?policy={POLICY.digest}&g1.t0=0.25")
    assert "is under its threshold" in bad.text


async def test_without_a_ledger_each_page_says_so(tmp_path: Path) -> None:
    async with admin_port(tmp_path, "--database", "off") as port, port.caller() as caller:
        for path in ("/decisions", "/unscanned", "/what-if", f"/decisions/{number(1)}"):
            page = await caller.get(path)
            assert page.status_code == 503
            assert "there is no ledger" in page.text
        page = await caller.get("/")
        assert page.status_code == 200
        assert "there is no ledger" in page.text
        assert "pytorch-cpu-float32" in page.text  # of the replica


async def test_a_database_that_is_down_is_told_loudly(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none"
    async with admin_port(tmp_path, "--database", url) as port, port.caller() as caller:
        for path in ("/", "/decisions", "/what-if", "/overrides/history"):
            page = await caller.get(path)
            assert page.status_code == (200 if path == "/" else 503)
            assert "The ledger is in trouble." in page.text
            assert "Traceback" not in page.text
        page = await caller.get("/overrides")  # they are in memory
        assert page.status_code == 200
        fields = {"action": "deny", "sha256": "ab" * 32, "why": "x"}
        added = await submit(caller, "/overrides", "/overrides/add", **fields)
        assert added.status_code == 503
        assert (await caller.get("/metrics")).status_code == 200


async def test_damaged_views_cost_a_page_nothing_else(
    port: AdminPort, local: httpx.AsyncClient
) -> None:
    await port.keep(rejected(1), uploaded(2, repeat_of=number(1), views=()))
    damage = update(decisions).where(decisions.c.id == number(1)).values(views=b"\x01\x02")
    await port.ledger.transaction(lambda connection: connection.execute(damage))
    for n in (1, 2):
        page = await local.get(f"/decisions/{number(n)}")
        assert page.status_code == 200
        assert "Nothing was looked at" in page.text


async def test_what_if_looks_at_the_newest_whatever_the_clock_said(
    port: AdminPort, local: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what_if, "MOST_DECISIONS", 3)
    ahead = rejected(0, at=time.time_ns() // 1000 + 3600_000_000)
    await port.keep(ahead, *(rejected(n) for n in range(1, 10)))
    query = f"policy={POLICY.digest}&g0.t0=0.2"
    text = (await local.get(f"/what-if?{query}")).text
    assert "<b>3</b> of 3 decisions would have come out otherwise" in text
    assert "3 newest of 10 decisions" in text
    assert listed(await local.get(f"/what-if?{query}")) == [9, 8, 7]
    monkeypatch.setattr(what_if, "MOST_BYTES", 1)
    monkeypatch.setattr(recorded_rows, "PAGE_ROWS", 2)
    assert "<b>2</b> of 2 decisions" in (await local.get(f"/what-if?{query}")).text


HOSTILE = "<script>alert(1)</script>'\"; DROP TABLE decisions; -- {{7*7}}"


async def test_html_and_sql_are_text_everywhere(port: AdminPort, local: httpx.AsyncClient) -> None:
    shown = rejected(
        1,
        client=HOSTILE,
        media_type=HOSTILE[:32],
        found_type=HOSTILE[:30],
        message=HOSTILE,
        rule=HOSTILE,
        shadow_rule=HOSTILE,
        shadow=Action.REJECT,
        partial=HOSTILE,
        backend=HOSTILE[:60],
        rescan=Rescan.FAILED,
        unscanned=True,
    )
    await port.keep(shown)
    port.components[HOSTILE] = HOSTILE
    page = f"/decisions/{number(1)}"
    await submit(local, page, f"{page}/override", action="allow", why=HOSTILE)
    await submit(local, "/overrides", "/overrides/add", action="deny", sha256=HOSTILE, why=HOSTILE)
    (entry,) = port.overrides.current.entries
    query = {"search": HOSTILE, "rule": HOSTILE, "client": HOSTILE, "since": HOSTILE}
    for path in (*PAGES, page, f"/overrides/{entry.id}", f"/{HOSTILE}", "/what-if/effect"):
        for parameters in (None, query, {"rule": HOSTILE}, {"g0.t0": HOSTILE}, {"next": HOSTILE}):
            text = (await local.get(path, params=parameters)).text
            assert "<script>alert" not in text
            assert "alert(1)</script>" not in text
            assert "'\";" not in text
    assert listed(await local.get("/decisions", params={"rule": HOSTILE})) == [1]
    assert "&lt;script&gt;" in (await local.get(page)).text
