"""`policy replay` says what scoring the pictures again by the changed policy would.

REPLAY_PICTURES=10000 takes ten thousand of them, and some minutes; --log-cli-level=INFO says how
many of them flip.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gateway.ledger.packing import unpack_views
from imagesafety.policy_file import find_policy, parse_policy
from inference.demo.drawing import random_scene, render
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import Service, gateway, off_loop
from tests.media import still

PICTURES = int(os.environ.get("REPLAY_PICTURES", "200"))
AT_ONCE = 16
NEAR = 1e-4  # a similarity may depend on the batch by a tenth of that
# Many a drawing has a triangle, few a red one.
OLD = find_policy("demo").read_text().replace('all = ["colour", "shape"]', 'all = ["shape"]')
NEW = OLD.replace("triangle = 0.107", "triangle = 0.27")

log = logging.getLogger(__name__)


def picture(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return still(render(random_scene(rng), 96, 96))


async def post_all(service: Service) -> list[Answer]:
    """The answers to all pictures, in their order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(seed: int) -> Answer:
        async with gate:
            return await post(service.address, await asyncio.to_thread(picture, seed))

    return await asyncio.gather(*(send(seed) for seed in range(PICTURES)))


async def replayed(service: Service, policy: Path) -> dict[str, tuple[str, str]]:
    """What `policy replay` says that would flip: from and to, by decision."""
    command = [sys.executable, "-m", "imagesafety.command", "policy", "replay", str(policy)]
    command += ["--admin", f"http://{service.admin}", "--json", "--since", "1d"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["decisions"], report["comparable"]) == (PICTURES, PICTURES)
    return {flip["id"]: (flip["from"], flip["to"]) for flip in report["flips"]}


def nearest(folder: Path, decisions: Sequence[str]) -> dict[str, float]:
    """How far the recorded similarities of some decisions are from any threshold."""
    policies = [parse_policy(text) for text in (OLD, NEW)]
    thresholds = {
        (name, value)
        for policy in policies
        for group in policy.groups.values()
        for name, value in (*group.thresholds.items(), *group.critical.items())
    }
    names = [concept.name for concept in policies[0].concepts]
    found = {}
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as database:
        for one in decisions:
            query = "SELECT views FROM decisions WHERE id = ?"
            (packed,) = database.execute(query, (one,)).fetchone()
            found[one] = min(
                abs(view.similarities[names.index(name)] - value)
                for view in unpack_views(packed)
                for name, value in thresholds
            )
    return found


@pytest.mark.timeout(300 + PICTURES)
async def test_replay_agrees_with_scoring_again(pair: Pair, tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(OLD)
    new.write_text(NEW)
    first = gateway(pair.inference, "--policy", str(old), data_folder=tmp_path / "first")
    async with off_loop(first) as service:
        before = await post_all(service)
        flips = await replayed(service, new)
    async with off_loop(gateway(pair.inference, "--policy", str(new))) as service:
        after = await post_all(service)
    assert {answer.body["cause"] for answer in (*before, *after)} == {"policy"}
    differing = {
        str(then.body["id"]): (str(then.body["decision"]), str(now.body["decision"]))
        for then, now in zip(before, after, strict=True)
        if then.body["decision"] != now.body["decision"]
    }
    assert flips, "the moved threshold has to matter"
    doubtful = {one for one in {*flips, *differing} if flips.get(one) != differing.get(one)}
    distances = nearest(tmp_path / "first", sorted(doubtful))
    counts = len(before), len(flips), len(doubtful)
    log.info("%d pictures, %d flips, %d otherwise than replayed", *counts)
    assert all(distance < NEAR for distance in distances.values()), distances
