"""Policies with probes, through the real pair."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Pair
from tests.e2e.probes import embedding, write_policy
from tests.e2e.processes import fetch, gateway, off_loop
from tests.e2e.test_pair import BAD, GOOD
from tests.e2e.test_policy_change import rule_for, until_rule


async def test_uploads_are_judged_by_a_probe_and_by_the_next_one(
    pair: Pair, tmp_path: Path
) -> None:
    model, bad = await asyncio.to_thread(embedding, pair.inference, BAD)
    _, good = await asyncio.to_thread(embedding, pair.inference, GOOD)
    towards_bad = np.array(bad) - np.array(good)
    policy = write_policy(tmp_path, model, towards_bad.tolist())
    async with off_loop(gateway(pair.inference, "--policy", str(policy))) as service:
        assert await rule_for(service, BAD) == "found"
        assert await rule_for(service, GOOD) is None
        write_policy(tmp_path, model, (-towards_bad).tolist())
        await until_rule(service, GOOD, "found")
        assert await rule_for(service, BAD) is None
        # Decisions by the first probe say nothing of the second one.
        admin = f"http://{service.admin}"
        replayed = await asyncio.to_thread(
            command, "policy", "replay", str(policy), "--admin", admin, "--since", "1h"
        )
        assert "new prompts or probes need new scores: wanted" in replayed.stdout
        for page in ("/", "/decisions", "/what-if"):
            assert (await asyncio.to_thread(fetch, admin + page))[0] == 200


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagesafety.command", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("spoil", ["change", "remove"])
def test_a_policy_whose_probe_is_not_the_one_that_is_meant_is_refused(
    pair: Pair, tmp_path: Path, spoil: str
) -> None:
    model, vector = embedding(pair.inference, BAD)
    policy = write_policy(tmp_path, model, vector)
    assert command("policy", "check", str(policy)).returncode == 0
    if spoil == "remove":
        (tmp_path / "wanted.probe").unlink()
    else:
        with (tmp_path / "wanted.probe").open("a") as file:
            file.write("\n")
    checked = command("policy", "check", str(policy))
    assert checked.returncode == 2
    assert checked.stderr.startswith(f"imagesafety: {policy}, line 3: ")
    assert checked.stderr.count("\n") == 1
