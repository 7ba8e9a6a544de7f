"""The set of a row: replicas behind a DNS name, gateways, uploads, and what they should score."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.rehearsal import arrivals
from benchmarks.rehearsal.certificates import TlsFolder
from benchmarks.rehearsal.checker import Similarities, Verdict, check
from benchmarks.rehearsal.fleet import Fleet, GatewayPlace, Process, leaving
from benchmarks.rehearsal.history import History, LedgerRow
from benchmarks.rehearsal.ledger_rows import read_rows
from benchmarks.rehearsal.name_server import NameServer, name_server
from benchmarks.rehearsal.pictures import MEDIA_TYPE, Pictures, drawings
from benchmarks.rehearsal.process_tree import CpuShares
from benchmarks.rehearsal.proxy import proxy
from benchmarks.rehearsal.uploads import Uploader, uploader
from imagesafety.client import ConceptSet, ScoringClient, TlsFiles
from imagesafety.policy_file import find_policy, load_policy
from tests.e2e.processes import free_port

NAME = "inference.rehearsal"
BUDGET_SECONDS = 8.0  # the gateway's default
DRAIN_DELAY = 2.0  # seconds: ten health checks of the proxy
PICTURES = 24


@dataclass(frozen=True)
class Plan:
    """What a row needs. `share` is the load, as a part of what all of it can bear."""

    replicas: int = 3
    gateways: int = 1
    share: float = 0.3
    model: str = "demo"
    policy: str = "demo"
    replica_flags: tuple[str, ...] = ()
    gateway_flags: tuple[str, ...] = ()
    measure_seconds: float = 5.0
    concurrency: int = 16
    """Uploads at once where the capacity is measured."""
    tls: tuple[TlsFolder, TlsFolder] | None = None
    """The files of inference and of the gateways."""
    replica_core: int | None = None
    """The only core that replicas may use, and nobody else; None: all use all."""


@dataclass
class Stage:
    """All of a row that runs."""

    plan: Plan
    fleet: Fleet
    names: NameServer
    target: str
    places: list[GatewayPlace]
    history: History
    client: Uploader
    expected: dict[int, Similarities] = field(default_factory=dict)
    capacity: float = 0.0
    rows: list[LedgerRow] = field(default_factory=list)
    begun: float = 0.0
    """When the load began, in seconds of time.monotonic()."""

    def __post_init__(self) -> None:
        self.shares = CpuShares(self.fleet.living)

    @contextlib.asynccontextmanager
    async def load(self, *, hang_ups: float = 0.0) -> AsyncIterator[None]:
        """The steady load, while the block runs, and a watch over who does the work."""
        self.begun = time.monotonic()
        async with (
            self.shares.watching(),
            arrivals.steady(self.client, self.rate, hang_ups=hang_ups),
        ):
            yield

    @property
    def rate(self) -> float:
        """Uploads a second of the steady load."""
        return self.capacity * self.plan.share

    async def start_replica(self, *, host: str | None = None) -> Process:
        """One more, which no name points to yet."""
        tls = self.plan.tls[0] if self.plan.tls else None
        flags = self.plan.replica_flags
        core = self.plan.replica_core
        return await asyncio.to_thread(
            self.fleet.start_replica, *flags, host=host, tls=tls, core=core
        )

    async def start_gateway(self, place: GatewayPlace) -> Process:
        """A process at this place."""
        flags = [*self.plan.gateway_flags, "--repeats", "false"]
        flags += ["--drain-delay", str(DRAIN_DELAY)]
        if self.plan.tls is not None:
            files = self.plan.tls[1]
            flags += ["--inference-ca", str(files.authorities)]
            flags += ["--inference-certificate", str(files.certificate)]
            flags += ["--inference-key", str(files.key)]
        return await asyncio.to_thread(self.fleet.start_gateway, place, self.target, *flags)

    def publish(self, *replicas: Process) -> None:
        """Has the name point to these replicas."""
        self.names.addresses = tuple(replica.host for replica in replicas)

    def busiest(self, seconds: float) -> Process:
        """The replica that did most in the last seconds: what befalls it is felt."""
        living = [replica for replica in self.fleet.replicas if not replica.ended]
        return max(living, key=lambda replica: self.shares.share(replica.host, seconds))

    async def until_share(self, host: str, least: float, seconds: float) -> float:
        """How long it took until a replica did so much of the work; infinite if it was longer."""
        return await self._until(lambda: self.shares.share(host, 3) >= least, seconds)

    async def until_share_under(self, host: str, most: float, seconds: float) -> float:
        """How long it took until a replica did less of the work than that."""
        return await self._until(lambda: self.shares.share(host, 2) <= most, seconds)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(1)
        while not condition():
            if loop.time() - begin > seconds:
                return math.inf
            await asyncio.sleep(0.25)
        return loop.time() - begin

    def judged(self) -> Verdict:
        """Reads the ledgers and checks everything; for when the load is over."""
        self.rows = [row for place in self.places for row in read_rows(place.name, place.folder)]
        return check(self.history.events, self.rows, self.expected)

    def unscanned_causes(self) -> str:
        """The unscanned rows by cause and message, the most frequent first."""
        counts = Counter(
            f"{row.cause} ({row.message[:90]})" for row in self.rows if not row.similarities
        )
        return "; ".join(f"{count} × {what}" for what, count in counts.most_common(3))


@contextlib.asynccontextmanager
async def stage(plan: Plan) -> AsyncIterator[Stage]:
    """Starts everything, scores each picture alone and measures the capacity."""
    pictures = Pictures(await asyncio.to_thread(drawings, PICTURES))
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(leaving(plan.replica_core))
        fleet = stack.enter_context(Fleet(model=plan.model, policy=plan.policy))
        port = free_port()
        names = await stack.enter_async_context(name_server(NAME, "127.0.0.1", port))
        places = [fleet.gateway_place(number + 1) for number in range(plan.gateways)]
        proxied = plan.gateways > 1
        address = f"127.0.3.1:{free_port()}" if proxied else places[0].address
        history = History()
        client = await stack.enter_async_context(uploader(address, pictures, history))
        target = f"dns://127.0.0.1:{port}/{NAME}:{fleet.port}"
        it = Stage(plan, fleet, names, target, places, history, client)
        it.publish(*[await it.start_replica() for _ in range(plan.replicas)])
        it.expected = await scored_alone(it, pictures)
        for place in places:
            await it.start_gateway(place)
        if proxied:
            addresses = [place.address for place in places]
            stack.enter_context(proxy(address, addresses))
        it.capacity = await arrivals.capacity(it.client, plan.concurrency, plan.measure_seconds)
        yield it


async def scored_alone(it: Stage, pictures: Pictures) -> dict[int, Similarities]:
    """The similarities of each picture, one call at a time on an idle replica."""
    tls = it.plan.tls
    files = TlsFiles(tls[1].authorities, tls[1].certificate, tls[1].key) if tls else None
    policy = load_policy(find_policy(it.plan.policy))
    concepts = ConceptSet(policy.concepts)
    found = {}
    async with ScoringClient(it.fleet.replicas[0].service.address, files) as client:
        for number, data in enumerate(pictures.files):
            # As the gateway asks: for perceptual hashes, JPEGs are decoded larger.
            scores = await client.score_image(
                _chunks([data]),
                concepts=concepts,
                timeout=60,
                media_type=MEDIA_TYPE,
                tiles=policy.tiles,
                closer_when=policy.closer_when,
                perceptual_hashes=True,
            )
            found[number] = tuple(tuple(view.similarities) for view in scores.views)
    return found


async def _chunks(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
