"""Another policy on a running gateway: asked what it would do, then put in its place."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from imagesafety.policy_file import find_policy
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import post
from tests.e2e.processes import Service, fetch, gateway, off_loop, wait_until
from tests.e2e.test_pair import BAD, GOOD

DEMO = find_policy("demo").read_text()
# Concepts in another order and under other names: a mixture of both would judge nonsense.
SHUFFLED = """
model = "demo"
[concepts]
round = ["a circle", "circles"]
azure = ["something blue", "a blue shape"]
green = ["something green", "a green shape"]
[groups.g]
thresholds = { round = 0.107, azure = 0.107 }
at_least = 2
[[rules]]
name = "blue-circle"
all = ["g"]
"""


def replace(policy: Path, text: str) -> None:
    """Change a policy in one step: a gateway may read a file that is being written."""
    part = policy.with_suffix(".part")
    part.write_text(text)
    part.replace(policy)


def state_of_file(service: Service) -> str:
    status, body = fetch(f"http://{service.address}/readyz")
    assert status == 200
    return str(json.loads(body)["components"]["policy file"])


async def rule_for(service: Service, image: bytes) -> str | None:
    answer = await post(service.address, image)
    rule: str | None = answer.body["rule"]
    assert answer.status == (200 if rule is None else 406)
    return rule


async def until_rule(service: Service, image: bytes, rule: str | None) -> None:
    async with asyncio.timeout(60):
        while await rule_for(service, image) != rule:
            pass


async def test_a_policy_is_swapped_between_uploads_and_never_within_one(
    pair: Pair, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(DEMO)
    answers: set[tuple[str | None, str | None]] = set()
    async with off_loop(gateway(pair.inference, "--policy", str(policy))) as service:
        assert await rule_for(service, BAD) == "red-and-triangle"

        async def keep_posting() -> None:
            while True:
                answers.add((await rule_for(service, BAD), await rule_for(service, GOOD)))

        posting = [asyncio.create_task(keep_posting()) for _ in range(3)]
        for text, rule in ((SHUFFLED, "blue-circle"), (DEMO, None), (SHUFFLED, "blue-circle")):
            replace(policy, text)
            service.process.send_signal(signal.SIGHUP)
            await until_rule(service, GOOD, rule)
            assert await rule_for(service, BAD) == (None if rule else "red-and-triangle")
        for task in posting:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
    # The policy may change between the two uploads of a pair.
    for bad, good in answers:
        assert bad in (None, "red-and-triangle")
        assert good in (None, "blue-circle")
    assert {("red-and-triangle", None), (None, "blue-circle")} <= answers


async def test_a_broken_file_leaves_the_policy_in_force_and_the_reason_on_readyz(
    pair: Pair, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(DEMO)
    async with off_loop(gateway(pair.inference, "--policy", str(policy))) as service:
        replace(policy, DEMO[: len(DEMO) // 2])
        await asyncio.to_thread(
            wait_until, lambda: state_of_file(service) != "ok", "notice of the broken file", 60
        )
        assert str(policy) in state_of_file(service)
        assert await rule_for(service, BAD) == "red-and-triangle"
        replace(policy, SHUFFLED)
        await until_rule(service, GOOD, "blue-circle")
        assert state_of_file(service) == "ok"
        metrics = fetch(f"http://{service.admin}/metrics")[1]
        assert 'imagesafety_policy_reloads_total{outcome="refused"} 1.0' in metrics
        assert 'imagesafety_policy_reloads_total{outcome="taken"} 1.0' in metrics


async def test_replay_tells_beforehand_what_the_change_will_do(pair: Pair, tmp_path: Path) -> None:
    policy, new = tmp_path / "policy.toml", tmp_path / "new.toml"
    policy.write_text(DEMO)
    new.write_text(DEMO.replace("triangle = 0.107", "triangle = 0.9"))
    async with off_loop(gateway(pair.inference, "--policy", str(policy))) as service:
        for image in (BAD, GOOD, BAD):
            await post(service.address, image)
        command = [sys.executable, "-m", "imagesafety.command", "policy", "replay", str(new)]
        command += ["--admin", f"http://{service.admin}", "--json", "--since", "1h"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        report = json.loads(done.stdout)
        assert (report["decisions"], report["comparable"]) == (3, 3)
        (change,) = report["changes"]
        assert (change["from"], change["to"], change["decisions"]) == ("reject", "accept", 2)
        assert change["by_rule"] == {"red-and-triangle": 2}
        assert change["by_client"] == {"IPADDR": 2}
        replace(policy, new.read_text())
        await until_rule(service, BAD, None)
