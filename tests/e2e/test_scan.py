"""`imagesafety scan` over real places, with the real service, killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.media_store import FILES, Made, made_files, planted, sha256
from tests.e2e.processes import Service, free_port, inference, wait_until
from tests.fake_pict_rs import API_KEY, fake_pict_rs
from tests.stored.servers import BUCKET, CREDENTIALS, S3Server, SftpServer, s3_server, sftp_server

ROOT = Path(__file__).parents[2]
FEW = 120  # files, where the service is not what is tried


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with inference() as service:
        yield service


PURGE = ("--action", "purge", "--yes", "--overrides", "none")


@dataclass
class Scan:
    """A scan of one place, with its state and report in a folder of its own."""

    place: str
    target: str
    folder: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state.sqlite"

    @property
    def report(self) -> Path:
        return self.folder / "report.jsonl"

    def start(self, *more: str, heard: bool = True) -> subprocess.Popen[str]:
        """Unless it is `heard`, nobody has to read what it prints, which a pipe has no room for."""
        command = [sys.executable, "-m", "imagesafety.command", "scan", self.place]
        command += ["--inference", self.target, "--state", str(self.state)]
        command += ["--report", str(self.report), *self.options, *more]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE if heard else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | self.environment,
        )

    def run(self, *more: str) -> tuple[int, str, str]:
        with self.start(*more) as process:
            output, errors = process.communicate(timeout=600)
        assert "Traceback" not in errors, errors
        return process.returncode, output, errors

    def killed_at(self, rows: int, *more: str) -> None:
        """Runs it until the state has so many rows, and kills it there."""
        with self.start(*more, heard=False) as process:
            wait_until(lambda: self.rows() >= rows or process.poll() is not None, "progress")
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()

    def rows(self) -> int:
        return int(self.ask("SELECT count(*) FROM files")[0][0])

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        if not self.state.exists():
            return [(0,)]
        with contextlib.closing(sqlite3.connect(self.state, timeout=10)) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError:  # not made yet
                return [(0,)]

    def names(self) -> Counter[str]:
        rows = self.ask("SELECT name FROM files")
        return Counter(row[0].decode("utf-8", "surrogateescape") for row in rows)

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.report.read_text().splitlines()]
        return [line for line in lines if not kinds or line["kind"] in kinds]


@dataclass
class Place:
    """Somewhere to scan, and what is there by another way."""

    scan: Scan
    contents: Callable[[], dict[str, bytes]]


def write(folder: Path, files: list[Made]) -> None:
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextlib.contextmanager
def in_folder(files: list[Made], target: str, folder: Path) -> Iterator[Place]:
    media = folder / "media"
    write(media, files)
    yield Place(Scan(str(media), target, folder), lambda: contents(media))


@contextlib.contextmanager
def in_bucket(files: list[Made], target: str, folder: Path) -> Iterator[Place]:
    with s3_server() as server:
        for file in files:
            server.client.put_object(Bucket=BUCKET, Key=f"store/{file.name}", Body=file.data)
        server.client.put_object(Bucket=BUCKET, Key="other/planted.png", Body=planted(9999))
        option = ("--storage-option", f"endpoint_url={server.url}")
        keys = {
            "AWS_ACCESS_KEY_ID": CREDENTIALS["key"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["secret"],
        }
        scan = Scan(f"s3://{BUCKET}/store", target, folder, option, keys)
        yield Place(scan, lambda: stored_in(server, "store/"))
        assert set(stored_in(server, "other/")) == {"planted.png"}


def stored_in(server: S3Server, base: str) -> dict[str, bytes]:
    return {
        key.removeprefix(base): server.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        for key in server.names()
        if key.startswith(base)
    }


@contextlib.contextmanager
def over_sftp(files: list[Made], target: str, folder: Path) -> Iterator[Place]:
    with sftp_server(folder / "sftp") as server:
        write(server.root / "store", files)
        yield Place(
            Scan(server.url("/store"), target, folder, ssh_options(server, "--storage-option")),
            lambda: contents(server.root / "store"),
        )


def ssh_options(server: SftpServer, option: str) -> tuple[str, ...]:
    pairs = (f"{name}={value}" for name, value in server.options.items())
    return tuple(text for pair in pairs for text in (option, pair))


PLACES = {"folder": in_folder, "s3": in_bucket, "sftp": over_sftp}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PLACES)
def test_a_scan_that_is_killed_three_times_looks_at_every_file_once(
    kind: str, service: Service, tmp_path: Path
) -> None:
    files = list(made_files(max(FEW, FILES if kind == "folder" else FEW), corpus=False))
    bad = {file.name for file in files if file.planted}
    with PLACES[kind](files, service.address, tmp_path) as place:
        scan = place.scan
        scored: list[Counter[str]] = []
        for share in (0.1, 0.4, 0.7):
            scan.killed_at(int(share * len(files)))
            scored.append(scan.names())
        code, output, _ = scan.run()
        assert code == 0, output
        # What was recorded before a kill was not looked at after it.
        assert f"{len(files)} files, {len(files) - scored[-1].total()} looked at now" in output
        assert scan.names() == Counter(file.name for file in files)
        assert Counter(line["name"] for line in scan.lines()).most_common(1)[0][1] == 1
        hits = scan.lines("hit")
        assert {line["name"] for line in hits} == bad
        assert {line["sha256"] for line in hits} == {sha256(f.data) for f in files if f.planted}
        assert place.contents() == {file.name: file.data for file in files}
        remove(kind, place, files, tmp_path)


def remove(kind: str, place: Place, files: list[Made], folder: Path) -> None:
    """Acts on what was found: says so first, does it then, killed on the way; each once."""
    bad = {file.name: file.data for file in files if file.planted}
    rest = {file.name: file.data for file in files if not file.planted}
    scan, action = place.scan, ["--action", "delete", "--overrides", "none"]
    if kind != "folder":
        made = imagesafety("quarantine", "key", str(folder / "key"))
        assert (made.returncode, (folder / "key").stat().st_mode & 0o777) == (0, 0o600)
        action = ["--action", "quarantine", "--quarantine", str(folder / "away")]
        action += ["--overrides", "none", "--quarantine-key", str(folder / "key")]
    code, output, errors = scan.run(*action)
    past = "deleted" if kind == "folder" else "moved to quarantine"
    assert code == 0
    assert f"{len(bad)} would be {past}" in output
    assert "scan pict-rs+http" in errors
    assert place.contents() == bad | rest
    with scan.start(*action, "--yes", heard=False) as process:
        done = "SELECT count(*) FROM actions WHERE ended_at IS NOT NULL"
        wait_until(lambda: scan.ask(done)[0][0] >= 1 or process.poll() is not None, "an action")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, output, errors = scan.run(*action, "--yes")
    assert code == 0, errors
    assert place.contents() == rest
    assert Counter(line["name"] for line in scan.lines("action")) == Counter(list(bad))
    assert all(line["outcome"] == "done" for line in scan.lines("action"))
    assert scan.ask("SELECT count(*) FROM actions WHERE ended_at IS NULL") == [(0,)]
    if kind != "folder":
        restored(folder, bad)
    code, output, _ = scan.run(*action, "--yes")
    assert (code, "0 hits" in output) == (0, True)


def restored(folder: Path, bad: dict[str, bytes]) -> None:
    """Everything in quarantine comes back as it was."""
    kept = {path.stem for path in (folder / "away").glob("*.quarantined")}
    assert kept == {sha256(data) for data in bad.values()}
    for number, data in enumerate(bad.values()):
        target = folder / f"restored-{number}"
        where = ["--quarantine", str(folder / "away"), "--quarantine-key", str(folder / "key")]
        ended = imagesafety("quarantine", "restore", sha256(data), *where, "--to", str(target))
        assert ended.returncode == 0, ended.stderr
        assert target.read_bytes() == data
        note = json.loads((folder / "away" / f"{sha256(data)}.json").read_text())
        assert note["found"][0]["name"] in bad
        if number == 2:
            return


@pytest.mark.timeout(1800)
def test_sound_and_broken_media_are_told_apart(service: Service, tmp_path: Path) -> None:
    files = list(made_files(seed=1))
    bad = {file.name for file in files if file.planted}
    with in_folder(files, service.address, tmp_path) as place:
        scan = place.scan
        code, output, errors = scan.run(
            *("--verbose", "--action", "delete", "--yes", "--overrides", "none")
        )
        lines = scan.lines()
        problems = Counter(line["name"] for line in lines if line["kind"] == "problem")
        assert code == 0, errors + output
        assert problems.most_common(1)[0][1] == 1
        assert all(line["reason"] for line in lines if line["kind"] == "problem")
        # Drawings of the corpus may be anything to the demo model; what is planted is known.
        hits = {line["name"] for line in lines if line["kind"] == "hit"}
        assert bad <= hits
        assert not {name for name in hits - bad if "corpus" not in name}
        assert not hits & set(problems)
        assert place.contents() == {f.name: f.data for f in files if f.name not in hits}


async def test_pict_rs_is_scanned_and_purged(service: Service, tmp_path: Path) -> None:
    files = list(made_files(FEW, corpus=False))
    by_hash = {sha256(file.data): file for file in files}  # pict-rs has the same bytes once
    bad = {digest for digest, file in by_hash.items() if file.planted}
    async with fake_pict_rs() as fake:
        for number, file in enumerate(by_hash.values()):
            fake.store(file.data, "i-png", f"{number}-a.png", f"{number}-b.png")
        scan = Scan(f"pict-rs+{fake.url}", service.address, tmp_path)
        scan.environment = {"IMAGESAFETY_PICT_RS_API_KEY": API_KEY}
        for share in (0.1, 0.4, 0.7):
            await asyncio.to_thread(scan.killed_at, int(share * len(by_hash)))
        code, output, errors = await asyncio.to_thread(scan.run, "--action", "purge")
        assert code == 0, errors
        assert f"{len(bad)} would be purged" in output
        assert {line["sha256"] for line in scan.lines("hit")} == bad
        assert len(fake.files) == len(by_hash)
        code, output, errors = await asyncio.to_thread(scan.run, *PURGE)
        assert code == 0, errors
        assert f"{len(bad)} purged" in output
        assert len(fake.purged) == len(bad)
        assert {file.sha256 for file in fake.files} == set(by_hash) - bad
        purged = Counter(line["sha256"] for line in scan.lines("action"))
        assert purged == Counter(list(bad))
        # What comes back is a hit again, without being scored again.
        again = next(file for file in files if file.planted)
        fake.store(again.data, "i-png", "again.png")
        code, output, _ = await asyncio.to_thread(scan.run, *PURGE)
        assert (code, fake.purged[-1]) == (0, "again.png")


def test_the_service_may_be_killed_meanwhile(tmp_path: Path) -> None:
    files = list(made_files(FEW, corpus=False))
    address = f"127.0.0.1:{free_port()}"
    with in_folder(files, address, tmp_path) as place:
        with inference(listen=address) as first:
            process = place.scan.start()
            wait_until(lambda: place.scan.rows() > 20, "progress")
            first.process.kill()
            first.process.wait()
        with inference(listen=address):
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert place.scan.names() == Counter(file.name for file in files)
        assert {line["name"] for line in place.scan.lines("hit")} == {
            file.name for file in files if file.planted
        }


def test_a_daemon_scans_again_and_ends_cleanly(service: Service, tmp_path: Path) -> None:
    files = list(made_files(30, corpus=False))
    with in_folder(files, service.address, tmp_path) as place:
        scan = place.scan
        process = scan.start("--every", "1m", "--since", "1d")
        wait_until(lambda: scan.rows() == len(files), "the first round")
        with scan.start() as second:  # with the same state
            _, errors = second.communicate(timeout=60)
        assert (second.returncode, "another scan is running" in errors) == (1, True)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert f"{len(files)} files" in output


def imagesafety(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagesafety.command", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/none"], "/none: no such folder"),
        (["ftp://host"], "no place that can be scanned"),
        ([".", "--since", "7 days"], "no time to look back"),
        ([".", "--every", "soon"], "no time"),
        ([".", "--limit", "0"], "--limit"),
        ([".", "--policy", "none"], "no such policy"),
        ([".", "--overrides", "none.csv"], "none.csv: cannot be read"),
        ([".", "--action", "purge"], "is for pict-rs"),
        ([".", "--action", "quarantine"], "needs --quarantine"),
        (
            [".", "--action=quarantine", "--quarantine=memory://q", "--quarantine-key=none"],
            "memory://… is no quarantine",
        ),
        ([".", "--storage-option", "a"], "KEY=VALUE"),
        ([".", "--key", "a"], "--key"),
        (["pict-rs+http://127.0.0.1:1"], "needs its API key"),
        (["pict-rs+http://127.0.0.1:1", "--pict-rs-api-key-file", "none"], "none"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments: list[str], reason: str) -> None:
    ended = imagesafety("scan", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert reason in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("imagesafety: ")


def test_a_report_that_nobody_could_read_back_is_refused(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "state.sqlite")]
    ended = imagesafety("scan", str(tmp_path), *state, "--report", "/dev/stdout")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr == "imagesafety: /dev/stdout: it is no regular file, as a report has to be\n"
    )


def test_a_quarantine_inside_of_what_is_scanned_is_refused(tmp_path: Path) -> None:
    assert imagesafety("quarantine", "key", str(tmp_path / "key")).returncode == 0
    again = imagesafety("quarantine", "key", str(tmp_path / "key"))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    where = ["--quarantine-key", str(tmp_path / "key"), "--quarantine", str(tmp_path / "away")]
    ended = imagesafety("scan", str(tmp_path), "--action", "quarantine", *where)
    assert (ended.returncode, "inside of what is scanned" in ended.stderr) == (2, True)


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    with in_folder([], f"127.0.0.1:{free_port()}", tmp_path) as place:
        (tmp_path / "media").mkdir()
        code, _, errors = place.scan.run()
    assert code == 1
    assert "imagesafety up" in errors
