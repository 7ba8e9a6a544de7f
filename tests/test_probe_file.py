"""Probes: files beside the policy, pinned by their digest."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.client import ConceptSet
from imagesafety.policy_file import PolicyError, PolicyProbeError, load_policy, parse_policy
from imagesafety.probe_file import (
    LARGEST_BYTES,
    ProbeError,
    ProbeFile,
    Training,
    parse_probe,
    probe_bytes,
)
from imagesafety.transfer import Transfer

WEIGHTS = "sha256:" + "0" * 64
PROBE = ProbeFile("demo", WEIGHTS, (0.5, -0.25, 2.0), -0.125, Training("by hand", 1, 2, "m", "d"))
POLICY = """\
model = "demo"

[concepts]
blue = ["blue"]
red = { probe = "red.probe", sha256 = "DIGEST" }

[groups.one]
thresholds = { red = 0.5 }

[[rules]]
name = "r"
all = ["one"]
"""


def written(folder: Path, probe: bytes | ProbeFile = PROBE, text: str = POLICY) -> Path:
    """A policy with its probe."""
    data = probe if isinstance(probe, bytes) else probe_bytes(probe)
    (folder / "red.probe").write_bytes(data)
    path = folder / "policy.toml"
    path.write_text(text.replace("DIGEST", hashlib.sha256(data).hexdigest()))
    return path


def test_a_policy_reads_its_probe_and_sends_it_with_its_concepts(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path))
    blue, red = policy.concepts
    assert (blue.probe, red.prompts) == (None, ())
    assert red.probe is not None
    assert (red.probe.vector, red.probe.bias) == (PROBE.vector, PROBE.bias)
    first, second = ConceptSet(policy.concepts).messages
    assert [prompt.text for prompt in first.prompts.prompts] == ["blue"]
    assert (tuple(second.probe.vector), second.probe.bias) == (PROBE.vector, PROBE.bias)


def test_the_text_alone_is_enough_to_judge_but_not_to_ask(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path))
    text_only = parse_policy(policy.text)
    assert text_only == policy
    assert text_only.concepts_digest == policy.concepts_digest
    with pytest.raises(ValueError, match="'red' was not read"):
        ConceptSet(text_only.concepts)


def test_a_probe_ties_the_policy_to_its_weights(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path))
    assert policy.mismatch("demo", WEIGHTS) is None
    assert "probe of 'red'" in (policy.mismatch("demo", "sha256:1") or "")


def test_concepts_without_probes_keep_their_digest() -> None:
    """Digests are in ledgers: of rows whose scores may be used again."""
    text = POLICY.replace('{ probe = "red.probe", sha256 = "DIGEST" }', '["red", "a red thing"]')
    digest = "1b605b441b05296de9db42365af17df9b8bedf50d648b61f14af0613d1630954"
    assert parse_policy(text).concepts_digest == digest


def test_concepts_are_the_same_by_the_same_probe_whatever_its_file(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path))
    moved = parse_policy(policy.text.replace("red.probe", "other.probe").replace("0.5", "0.25"))
    transfer = Transfer.between(policy, moved)
    assert transfer.missing is None
    assert transfer.views([(0.1, 0.2)]) == [(0.1, 0.2)]
    trained = load_policy(written(tmp_path, replace(PROBE, bias=0)))
    assert trained.concepts_digest != policy.concepts_digest
    missing = "new prompts or probes need new scores: red"
    assert Transfer.between(policy, trained).missing == missing


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.floats(-1, 1))
def test_a_probe_is_read_as_it_was_written(vector: list[float], bias: float) -> None:
    probe = ProbeFile("demo", WEIGHTS, tuple(vector), bias)
    if any(vector):
        assert parse_probe(probe_bytes(probe)) == probe
    else:
        with pytest.raises(ProbeError, match="zero"):
            parse_probe(probe_bytes(probe))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "no probe of format 1"),
        ({"model": ""}, "names no model"),
        ({"model": "other"}, "is for model other, not demo"),
        ({"weights_digest": "abc"}, "names no weights"),
        ({"vector": "%"}, "no base64"),
        ({"vector": "AAA="}, "no base64"),
        ({"vector": ""}, "zero"),
        ({"vector": [1.0]}, "zero"),
        ({"vector": "AADAfw=="}, "not finite"),
        ({"bias": 1.5}, "bias"),
        ({"bias": True}, "bias"),
        ({"bias": None}, "bias"),
        ({"trained": [1]}, "`trained`"),
        ({"trained": {"x": 1}}, "`trained`"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_what_is_wrong_with_a_probe(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    content = {**json.loads(probe_bytes(PROBE)), **changes}
    path = written(tmp_path, json.dumps(content).encode())
    with pytest.raises(PolicyProbeError) as caught:
        load_policy(path)
    assert str(caught.value).startswith(f"{path}, line 5: the probe {tmp_path / 'red.probe'} ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1]", b"[" * 100_000])
def test_a_file_that_is_no_probe(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PolicyProbeError, match=r"line 5: .* is no"):
        load_policy(written(tmp_path, data))


def test_a_probe_that_is_not_there_or_not_the_one_that_is_meant(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "red.probe").write_bytes(probe_bytes(replace(PROBE, bias=0)))
    with pytest.raises(PolicyProbeError, match=r"line 5: .* another SHA-256"):
        load_policy(path)
    (tmp_path / "red.probe").write_bytes(b" " * (LARGEST_BYTES + 1))
    with pytest.raises(PolicyProbeError, match=r"line 5: .* over 1048576 bytes"):
        load_policy(path)
    (tmp_path / "red.probe").unlink()
    with pytest.raises(PolicyProbeError, match="line 5: there is no probe file"):
        load_policy(path)
    (tmp_path / "red.probe").mkdir()
    with pytest.raises(PolicyProbeError, match=r"line 5: .* cannot be read"):
        load_policy(path)


def test_a_probe_for_other_weights_than_the_policy(tmp_path: Path) -> None:
    other = f'weights_digest = "sha256:{"1" * 64}"\n'
    with pytest.raises(PolicyProbeError, match=r"line 6: .* for other weights than the policy"):
        load_policy(written(tmp_path, text=other + POLICY))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('sha256 = "DIGEST"', 'sha256 = "abc"', "sha256 must be 64 hex digits"),
        (', sha256 = "DIGEST"', "", "'sha256' must be a text"),
        ('probe = "red.probe"', "probe = 1", "'probe' must be a text"),
        ('sha256 = "DIGEST"', 'prompts = ["red"]', "unknown key 'prompts'"),
    ],
)
def test_a_probe_needs_a_file_and_its_digest(old: str, new: str, reason: str) -> None:
    with pytest.raises(PolicyError, match="line 5: ") as caught:
        parse_policy(POLICY.replace(old, new).replace("DIGEST", "0" * 64))
    assert reason in str(caught.value)
