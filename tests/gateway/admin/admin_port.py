"""An admin port over a real ledger in a temporary folder, and callers of all kinds."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.applications import Starlette

from gateway.admin.app import admin_app
from gateway.admin.parts import Parts
from gateway.first_call import FirstCall
from gateway.health import State
from gateway.ledger.ledger import AnyLedger, Ledger, NoLedger
from gateway.ledger.record import DecisionRecord, ScoredBy
from gateway.metrics import Metrics
from gateway.overrides.store import OverrideStore
from gateway.policy_in_force import CurrentPolicy
from gateway.replicas import Replica
from gateway.settings import Settings, load_settings
from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from imagesafety.scores import PerceptualHash, View
from tests.gateway.records import record

TOKEN = "a token of 25 characters."
HERE = "http://127.0.0.1:14052"
POLICY = parse_policy("""
model = "demo"
[concepts]
red = ["something red"]
triangle = ["a triangle"]
blue = ["something blue"]
[[adjustments]]
when = { blue = 0.2 }
add = { red = -0.03 }
[groups.colour]
thresholds = { red = 0.107 }
[groups.shape]
thresholds = { triangle = 0.107 }
critical = { triangle = 0.2 }
[[rules]]
name = "red-and-triangle"
all = ["colour", "shape"]
""")
SCORED_BY = ScoredBy(POLICY.digest, POLICY.concepts_digest, "demo", "sha256:" + "0" * 64)
REJECTED = View(0, 0.0, (10, 20, 100, 80), (0.15, 0.16, 0.05))
HARMLESS = View(0, 0.0, (0, 0, 300, 200), (0.05, 0.06, 0.25))


def number(n: int) -> str:
    """The id of the nth record."""
    return f"{n:032x}"


def uploaded(n: int, **changes: object) -> DecisionRecord:
    """The nth upload, a second after the one before, accepted if nothing else is said."""
    scored: dict[str, object] = {
        "id": number(n),
        "at": time.time_ns() // 1000 - 3600_000_000 + n * 1_000_000,
        "sha256": n.to_bytes(32, "big"),
        "scored_by": SCORED_BY,
        "backend": "pytorch-cpu-float32",
        "found_type": "image/png",
        "width": 300,
        "height": 200,
        "frames": 1,
        "total_frames": 1,
        "views": (HARMLESS,),
        "perceptual_hashes": (PerceptualHash(n.to_bytes(32, "little"), 90),),
    }
    return record(**(scored | changes))


def rejected(n: int, **changes: object) -> DecisionRecord:
    """The nth upload, rejected by its second view."""
    why: dict[str, object] = {
        "decision": "reject",
        "message": "rule red-and-triangle holds",
        "rule": "red-and-triangle",
        "views": (HARMLESS, REJECTED),
        "deciding_view": 1,
    }
    return uploaded(n, **(why | changes))


@dataclass
class AdminPort:
    """The app, and the parts that tests look into."""

    app: Starlette
    ledger: AnyLedger
    overrides: OverrideStore
    current: CurrentPolicy
    first_call: FirstCall
    components: dict[str, str] = field(default_factory=dict)
    replicas: list[Replica] = field(default_factory=list)

    def caller(
        self, peer: str = "127.0.0.1", base: str = HERE, headers: Mapping[str, str] | None = None
    ) -> httpx.AsyncClient:
        """A client on that address, who keeps cookies."""
        transport = httpx.ASGITransport(self.app, client=(peer, 40000))
        return httpx.AsyncClient(transport=transport, base_url=base, headers=headers)

    async def keep(self, *records: DecisionRecord) -> None:
        """Has records in the ledger."""
        for one in records:
            assert await self.ledger.record(one, until=time.monotonic() + 10) == "database"


@contextlib.asynccontextmanager
async def admin_port(folder: Path, *flags: str, token: str = "") -> AsyncIterator[AdminPort]:
    """Runs an admin port until the block ends."""
    settings: Settings = load_settings([*flags, *(["--admin-token", token] if token else [])])
    metrics = Metrics()
    ledger: AnyLedger = NoLedger()
    if settings.database != "off":
        url = settings.database or f"sqlite:///{folder / 'ledger.db'}"
        ledger = Ledger(url, folder / "spool", metrics, retention_days=90)
    await ledger.start()
    overrides = OverrideStore(ledger, metrics)
    current = CurrentPolicy(POLICY)
    ledger.note_policy(POLICY)
    await overrides.start()
    components = {"inference": "ok", "policy": "ok"}

    async def health() -> State:
        return State(set(components.values()) == {"ok"}, components)

    replicas = [Replica("127.0.0.1:50051", "ok", "demo", "pytorch-cpu-float32")]

    async def asked(policy: Policy) -> list[Replica]:
        return replicas

    first_call = FirstCall(ledger)
    parts = Parts(settings, ledger, overrides, current, health, asked, first_call)
    app = admin_app(parts, metrics)
    try:
        yield AdminPort(app, ledger, overrides, current, first_call, components, replicas)
    finally:
        await overrides.close()
        await ledger.close()


def form_token(page: httpx.Response) -> str:
    """The hidden field of a page's forms."""
    match = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert match is not None, page.text
    return match[1]


async def submit(
    caller: httpx.AsyncClient, page: str, target: str, **fields: str
) -> httpx.Response:
    """Sends a form as a browser does that has loaded its page."""
    loaded = await caller.get(page)
    data = {"form_token": form_token(loaded), **fields}
    headers = {"origin": str(caller.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    return await caller.post(target, data=data, headers=headers, follow_redirects=True)
