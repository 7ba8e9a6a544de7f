"""Plays with the containers, one function a row; each has its requirements."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tools.containers.engine import CommandError
from tools.containers.images import README, ROOT
from tools.containers.stack import ADMIN_TOKEN, API_KEY, NotInTimeError, Stack, wait_until
from tools.containers.traffic import Traffic

_FROZEN_SECONDS: Final = 12.0
_LOAD_SECONDS: Final = 6.0
_AGAIN_SECONDS: Final = 90.0
GRACE_SECONDS: Final = 40.0  # the longest of the shipped files


@dataclass(frozen=True)
class Row:
    """A row of the table: counts, what is to be noted, and which requirements were missed."""

    what: str
    uploads: int = 0
    failed: int = 0
    unscanned: int = 0
    missed: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Requirement:
    """Something that has to hold after a play."""

    text: str
    holds: bool


def missed(*requirements: Requirement) -> list[str]:
    """Return the texts of the requirements that do not hold."""
    return [requirement.text for requirement in requirements if not requirement.holds]


def played(
    what: str,
    stack: Stack,
    traffic: Traffic,
    *requirements: Requirement,
    before: tuple[int, int] = (0, 0),
    may_fail: bool = False,
    note: str = "",
) -> Row:
    """Return the row of a play with uploads, after what passed unscanned was looked at again.

    In every play: no red triangle is left in pict-rs, no blue circle was rejected or is gone, and
    every upload had an answer unless the gateway itself was down.
    """
    unscanned = 0

    def rescanned() -> bool:
        nonlocal unscanned
        passed, again = stack.unscanned()
        unscanned = passed - before[0]
        return passed <= again

    try:
        wait_until("what passed unscanned is looked at again", rescanned, _AGAIN_SECONDS)
        is_rescanned = True
    except NotInTimeError:
        is_rescanned = False
    left, lost, refused = traffic.stored_red(), traffic.lost_blue(), traffic.refused_blue()
    failed = traffic.failed()
    common = (
        Requirement("unscanned ones are rescanned", is_rescanned),
        Requirement(f"no red triangle is left, {len(left)} are", not left),
        Requirement(f"no blue circle is rejected, {refused} are", refused == 0),
        Requirement(f"no blue circle is gone, {lost} are", lost == 0),
        Requirement(f"no upload fails, {failed} do", may_fail or failed == 0),
    )
    return Row(
        what,
        len(traffic.made),
        failed,
        unscanned,
        missed(*common, *requirements),
        note,
    )


def configure(stack: Stack) -> None:
    """Write .env as somebody would who tries the demo."""
    stack.write()
    stack.set(
        COMPOSE_PROJECT_NAME=stack.folder.name,
        IMAGESAFETY_ADMIN_TOKEN=ADMIN_TOKEN,
        IMAGESAFETY_POLICY="demo",
        IMAGESAFETY_MODEL="demo",
        IMAGESAFETY_MODE="enforce",
        IMAGESAFETY_ON_LATE_REJECT="purge",
        PICTRS_API_KEY=API_KEY,
    )


def first_uploads(stack: Stack) -> Row:
    """The shipped file, a clash of its network first: one upload of each kind."""
    network = f"{stack.folder.name}-in-the-way"
    stack.engine.docker("network", "create", "--subnet", "10.140.51.0/24", network)
    try:
        stack.compose("up", "--detach")
        reported = ""
    except CommandError as error:
        reported = str(error)
    finally:
        stack.down()
    stack.set(IMAGESAFETY_NETWORK="10.141.52")
    stack.up()
    elsewhere = Traffic(stack.uploads_url()).upload(red=True).status
    stack.engine.docker("network", "rm", network)
    stack.down()
    del stack.variables["IMAGESAFETY_NETWORK"]
    stack.set()
    seconds = stack.up()
    traffic = Traffic(stack.uploads_url())
    red, blue = traffic.upload(red=True).status, traffic.upload(red=False).status
    return played(
        "the shipped file beside pict-rs",
        stack,
        traffic,
        Requirement("a network that is taken is reported at `up`", "overlap" in reported),
        Requirement(f"another one in .env works: {elsewhere}", elsewhere == 400),
        Requirement(f"the red triangle is rejected: {red}", red == 400),
        Requirement(f"the blue circle is accepted: {blue}", blue == 201),
        note=f"ready after {seconds:.0f} s",
    )


def by_name(stack: Stack) -> Row:
    """The validator by a name, as earlier files had it: the reason for the address."""
    stack.add("name.yml", {"pictrs": _validator("http://imagesafety:14051/api/v1/scan/IPADDR")})
    stack.up()
    status = Traffic(stack.uploads_url()).upload(red=False).status
    stack.add("name.yml", {})
    stack.up()
    again = Traffic(stack.uploads_url()).upload(red=False).status
    return Row(
        "the validator by its name, then by its address",
        2,
        1,
        0,
        missed(
            Requirement(f"a name fails, as it does since 0.5.21: {status}", status == 500),
            Requirement(f"the address works: {again}", again == 201),
        ),
        "this row changes when pict-rs does",
    )


def _validator(url: str) -> dict[str, Any]:
    return {"environment": [f"PICTRS__MEDIA__EXTERNAL_VALIDATION={url}"]}


def strangers(stack: Stack) -> Row:
    """Nobody but pict-rs gets a decision; no port of the gateway is published."""
    url = f"http://{stack.address('imagesafety')}:14051/api/v1/scan/IPADDR"
    picture = (ROOT / "examples" / "blue-circle.png").read_bytes()
    answer = httpx.post(url, content=picture, headers={"content-type": "image/png"})
    ports = stack.inspect(stack.containers("imagesafety")[0])["HostConfig"]["PortBindings"]
    return Row(
        "a call from elsewhere",
        missed=missed(
            Requirement(f"a stranger gets 401: {answer.status_code}", answer.status_code == 401),
            Requirement(f"only the admin pages have a port: {ports}", list(ports) == ["14052/tcp"]),
        ),
    )


def commands(stack: Stack) -> Row:
    """Each documented command of each image, as it is written."""
    done, wrong = [], []
    for line in documented_commands():
        try:
            stack.compose(*line)
            done.append(line)
        except CommandError as error:
            wrong.append(str(error))
    for service in (stack.gateway, "inference"):
        image = stack.inspect(stack.containers(service)[0])["Config"]["Image"]
        stack.engine.docker("run", "--rm", image, "--help")
    wait_until("the services are ready", stack.is_ready)
    return Row("the commands of deploy/README.md", missed=wrong, note=f"{len(done)} commands")


def documented_commands() -> list[list[str]]:
    """Return the arguments of each `docker compose` in the code blocks of deploy/README.md."""
    text = README.read_text().partition("## In place of pictrs-safety")[0]
    found = re.findall(r"^ {4,}docker compose ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return [shlex.split(line.replace("\\\n", ""), comments=True) for line in found]


def scans(stack: Stack) -> Row:
    """Files that were let in by a shadow mode are found by a scan, and purged when it may."""
    stack.set(IMAGESAFETY_MODE="shadow")
    stack.up()
    traffic = Traffic(stack.uploads_url())
    for number in range(24):
        traffic.upload(red=number % 2 == 0)
    stack.set(IMAGESAFETY_MODE="enforce")
    stack.up()
    listed = stack.compose("run", "--rm", "scan")
    stored = len(traffic.stored_red())
    purge = ("--overrides", "http://imagesafety:14052", "--action", "purge", "--yes")
    stack.compose("run", "--rm", "scan", *purge)
    return played(
        "scan, then scan and purge",
        stack,
        traffic,
        Requirement("a scan lists 12 hits", listed.count("hit: red-and-triangle") >= 12),
        Requirement(f"a scan touches nothing: {stored} of 12 are left", stored == 12),
    )


def killed(stack: Stack) -> Row:
    """The inference process dies inside its container, under load."""
    before, traffic = stack.unscanned(), Traffic(stack.uploads_url())
    (container,) = stack.containers("inference")
    with traffic.load():
        time.sleep(_LOAD_SECONDS)
        stack.kill_inside(container, "inference")
        moment = time.monotonic()
        wait_until("it scores again", lambda: traffic.scored_after(moment) is not None)
    under_load = traffic.scored_after(moment) or 0.0
    # And once with nothing else to do but to start again.
    stack.kill_inside(container, "inference")
    moment = time.monotonic()
    while traffic.scored_after(moment) is None and time.monotonic() < moment + _AGAIN_SECONDS:
        traffic.upload(red=True)
    alone = traffic.scored_after(moment) or 0.0
    return played(
        "inference killed in its container, twice",
        stack,
        traffic,
        Requirement("it scores again", alone > 0),
        before=before,
        note=f"scores again after {under_load:.1f} s under load, {alone:.1f} s without",
    )


def frozen(stack: Stack) -> Row:
    """The inference container stops answering, and then goes on."""

    def freeze(container: str) -> None:
        stack.engine.docker("pause", container)
        time.sleep(_FROZEN_SECONDS)
        stack.engine.docker("unpause", container)

    return _away(f"inference frozen for {_FROZEN_SECONDS:.0f} s", stack, freeze)


def cut_off(stack: Stack) -> Row:
    """The inference container loses its network, and then has it again."""
    network = f"{stack.folder.name}_imagesafety"

    def cut(container: str) -> None:
        stack.engine.docker("network", "disconnect", network, container)
        time.sleep(_FROZEN_SECONDS)
        stack.engine.docker("network", "connect", "--alias", "inference", network, container)

    return _away(f"inference cut off for {_FROZEN_SECONDS:.0f} s", stack, cut)


def _away(what: str, stack: Stack, go: Callable[[str], None]) -> Row:
    before, traffic = stack.unscanned(), Traffic(stack.uploads_url())
    (container,) = stack.containers("inference")
    with traffic.load():
        time.sleep(_LOAD_SECONDS)
        go(container)
        moment = time.monotonic()
        wait_until("it scores again", lambda: traffic.scored_after(moment) is not None)
    longest = max(one.seconds for one in traffic.made)
    again = traffic.scored_after(moment) or 0.0
    note = f"longest upload {longest:.1f} s; scores again after {again:.1f} s"
    return played(what, stack, traffic, before=before, note=note)


def replicas(stack: Stack) -> Row:
    """Of two replicas, one is killed and then one is frozen: nothing passes unscanned."""
    stack.compose("up", "--detach", "--no-recreate", "--scale", "inference=2")

    def scored(number: int) -> int:
        address = stack.address("inference", "imagesafety", number)
        return stack.metric(f"http://{address}:50052/metrics", "imagesafety_images_total")

    traffic, before = Traffic(stack.uploads_url()), stack.unscanned()
    with traffic.load():
        wait_until("the new replica scores", lambda: min(scored(0), scored(1)) > 0)
        one, other = stack.containers("inference")
        stack.kill_inside(one, "inference")
        time.sleep(_LOAD_SECONDS)
        wait_until("the killed replica scores again", lambda: min(scored(0), scored(1)) > 0)
        stack.engine.docker("pause", other)
        time.sleep(_FROZEN_SECONDS)
        stack.engine.docker("unpause", other)
        time.sleep(_LOAD_SECONDS)
    longest = max(made.seconds for made in traffic.made)
    passed = stack.unscanned()[0] - before[0]
    row = played(
        "two replicas, one killed, one frozen",
        stack,
        traffic,
        Requirement(f"nothing passes unscanned, {passed} do", passed == 0),
        before=before,
        note=f"longest upload {longest:.1f} s",
    )
    stack.compose("up", "--detach", "--scale", "inference=1")
    wait_until("the services are ready", stack.is_ready)
    return row


def gateway_restarted(stack: Stack) -> Row:
    """The gateway is restarted under load: pict-rs fails uploads meanwhile, and keeps nothing."""
    traffic = Traffic(stack.uploads_url())
    with traffic.load():
        time.sleep(_LOAD_SECONDS)
        stack.compose("restart", "imagesafety")
        moment = time.monotonic()
        wait_until("it answers again", lambda: traffic.scored_after(moment) is not None)
        time.sleep(_LOAD_SECONDS)
    return played("the gateway restarted", stack, traffic, may_fail=True)


def recreated(stack: Stack) -> Row:
    """Both sides are made anew, restarted and upgraded, and find each other each time."""
    statuses = []
    lemmys = ("--pull", "never", "--remove-orphans")  # as the playbook, but for the registry
    for arguments in (
        ("up", "--detach", "--force-recreate", "pictrs"),
        ("restart", "pictrs"),
        ("up", "--detach", "--force-recreate", "imagesafety"),
        ("restart", "imagesafety"),
        ("up", "--detach", *lemmys),
        ("up", "--detach", "--force-recreate"),
    ):
        stack.compose(*arguments)
        wait_until("the services are ready", stack.is_ready)
        traffic = Traffic(stack.uploads_url())
        statuses += [traffic.upload(red=True).status, traffic.upload(red=False).status]
    right = [400, 201] * (len(statuses) // 2)
    return Row(
        "both recreated and restarted in turn",
        len(statuses),
        missed=missed(Requirement(f"each upload is decided: {statuses}", statuses == right)),
    )


def short_of_memory(stack: Stack, service: str, limit: str, required: str) -> Row:
    """A limit on memory that is too small is reported, and uploads go on."""
    stack.add("memory.yml", {service: {"mem_limit": limit, "memswap_limit": limit}})
    stack.compose("up", "--detach")
    reported = ""

    def is_reported() -> bool:
        nonlocal reported
        states = [stack.inspect(one) for one in stack.containers(service)]
        killed = any(one["State"]["OOMKilled"] or one["RestartCount"] for one in states)
        reported = stack.compose("logs", "--no-color", service)
        return required in reported if required else killed

    wait_until("the limit is met", is_reported)
    traffic = Traffic(stack.uploads_url())
    status = traffic.upload(red=False).status
    stack.add("memory.yml", {})
    stack.up()
    line = next((line for line in reported.splitlines() if required and required in line), "")
    note = line.partition("| ")[2].strip() or "the engine restarts it; `docker inspect`: OOMKilled"
    return Row(
        f"{service} with {limit} of memory",
        1,
        missed=missed(Requirement(f"uploads go on meanwhile: {status}", status == 201)),
        note=note,
    )


def stopped(stack: Stack) -> Row:
    """Everything stops within its grace period, by itself."""
    begun = time.monotonic()
    services = ("imagesafety", "inference") if stack.gateway == "imagesafety" else (stack.gateway,)
    stack.compose("stop", *services)
    seconds = time.monotonic() - begun
    codes = [
        stack.inspect(container)["State"]["ExitCode"]
        for service in services
        for container in stack.containers(service)
    ]
    return Row(
        f"{', '.join(services)} stopped",
        missed=missed(
            Requirement(f"within {GRACE_SECONDS:.0f} s", seconds < GRACE_SECONDS),
            Requirement(f"with exit code 0: {codes}", not any(codes)),
        ),
        note=f"{seconds:.1f} s",
    )


def all_in_one(stack: Stack) -> Row:
    """Both services in one container, in place of pictrs-safety, as user 991."""
    seconds = stack.up()
    traffic = Traffic(stack.uploads_url())
    red, blue = traffic.upload(red=True).status, traffic.upload(red=False).status
    user = stack.inspect(stack.containers(stack.gateway)[0])["Config"]["User"]
    return played(
        "all-in-one in place of pictrs-safety",
        stack,
        traffic,
        Requirement(f"as user 991: {user}", user == "991:991"),
        Requirement(f"the red triangle is rejected: {red}", red == 400),
        Requirement(f"the blue circle is accepted: {blue}", blue == 201),
        note=f"ready after {seconds:.0f} s",
    )


def clean(stack: Stack) -> None:
    """Remove the project and its folder."""
    stack.down()
    shutil.rmtree(stack.folder, ignore_errors=True)
