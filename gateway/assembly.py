"""Puts the gateway together from its settings, and takes it apart again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from gateway.admin.app import admin_app
from gateway.admin.parts import Parts
from gateway.app import upload_app
from gateway.attempts import Attempts
from gateway.decision import Decider
from gateway.drain import Drain
from gateway.evidence import Cause
from gateway.examination import Examiner
from gateway.first_call import FirstCall
from gateway.health import Health
from gateway.ledger.ledger import AnyLedger, Ledger, NoLedger
from gateway.metrics import Metrics
from gateway.overrides.store import OverrideStore
from gateway.policy_in_force import CurrentPolicy
from gateway.policy_reload import PolicyReloader
from gateway.repeats import Repeats
from gateway.replicas import Replicas
from gateway.rescan import Rescanner
from gateway.scan import Scanner
from gateway.second_look import SecondLook
from gateway.settings import Settings
from gateway.warm_up import WarmUp
from gateway.webhooks import WebhookSender
from imagesafety.client import ScoringClient
from imagesafety.pict_rs import PictRs
from imagesafety.policy import Policy

log = logging.getLogger("gateway")


@dataclass(frozen=True)
class Gateway:
    """The two applications, and what signals reach."""

    uploads: Starlette
    admin: Starlette
    reloader: PolicyReloader
    drain: Drain


@asynccontextmanager
async def assembled(settings: Settings, path: Path, policy: Policy) -> AsyncIterator[Gateway]:
    """A gateway with everything that runs beside its requests, until the block ends.

    `policy` is what was read from `path`.
    """
    metrics = Metrics()
    metrics.tell_time_budget(settings.time_budget)
    current = CurrentPolicy(policy)
    ledger = _ledger(settings, metrics)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ScoringClient(settings.inference, settings.tls))
        await ledger.start()
        stack.push_async_callback(ledger.close)
        ledger.note_policy(policy)
        overrides = OverrideStore(ledger, metrics, settings.folder / "overrides.json")
        await overrides.start()
        stack.push_async_callback(overrides.close)
        decider = _decider(settings)
        repeats = Repeats(ledger, settings.repeat_cache) if settings.repeats else None
        attempts = Attempts(metrics, hedge_after=settings.hedge_after)
        examiner = Examiner(client, attempts, repeats, metrics, hashes=settings.perceptual_hashes)
        reloader = PolicyReloader(path, current, client, ledger, metrics)
        warm_up = WarmUp(client, current, settings.warm_up_seconds, attempts.note_answer)
        drain = Drain()
        health = Health(
            client,
            current,
            {"warm up": warm_up.trouble, "shutdown": drain.trouble},
            {
                "ledger": ledger.trouble,
                "overrides": overrides.trouble,
                "policy file": reloader.trouble,
            },
        )
        first_call = FirstCall(ledger)
        scanner = Scanner(
            settings, examiner, decider, current, overrides, ledger, metrics, first_call
        )
        running = [warm_up.run(), reloader.run(), first_call.run()]
        if settings.webhook_url:
            sender = WebhookSender(ledger, settings.webhook_url, settings.webhook_secret, metrics)
            stack.push_async_callback(sender.close)
            running.append(sender.run())
        if settings.pict_rs:
            look = SecondLook(examiner, decider, current, overrides).look
            pict_rs = PictRs(settings.pict_rs, settings.pict_rs_api_key)
            await stack.enter_async_context(pict_rs)
            rescanner = Rescanner(
                ledger, pict_rs, look, health.ready, metrics, on_late_reject=settings.on_late_reject
            )
            running.append(rescanner.run())
        for work in running:
            await stack.enter_async_context(_in_background(work))
        replicas = Replicas(settings.inference, settings.tls)
        parts = Parts(
            settings, ledger, overrides, current, health.check, replicas.check, first_call
        )
        yield Gateway(
            uploads=upload_app(scanner, health, drain),
            admin=admin_app(parts, metrics),
            reloader=reloader,
            drain=drain,
        )


def _ledger(settings: Settings, metrics: Metrics) -> AnyLedger:
    if settings.database == "off":
        return NoLedger()
    return Ledger(
        settings.database_url,
        settings.folder / "spool",
        metrics,
        retention_days=settings.retention_days,
        webhooks=bool(settings.webhook_url),
    )


def _decider(settings: Settings) -> Decider:
    return Decider(
        {
            Cause.UNDECODABLE: settings.on_undecodable == "accept",
            Cause.OVERLOAD: settings.on_overload == "accept",
            Cause.UNAVAILABLE: settings.on_unavailable == "accept",
            Cause.DEADLINE: settings.on_deadline == "accept",
            Cause.ERROR: settings.on_error == "accept",
        }
    )


@asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs a task beside the block, and cancels it at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
