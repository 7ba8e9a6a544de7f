"""How recorded decisions travel from a gateway, and how far back to look."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.policy import Action, Mode
from imagesafety.policy_file import parse_policy
from imagesafety.recorded import (
    Recorded,
    RecordedStream,
    RecordedStreamError,
    decision_line,
    end_line,
    error_line,
    policy_line,
    start_line,
)
from imagesafety.replay import NO_POLICY, replay
from imagesafety.since import parse_period, parse_since

POLICY = parse_policy(
    """
    model = "demo"
    concepts = { a = ["an a"] }
    groups.g.thresholds = { a = 0.5 }
    [[rules]]
    name = "stop"
    all = ["g"]
    """
)
REJECTED = Recorded(
    id="i",
    at=0,
    client="lemmy",
    client_mode=Mode.ENFORCE,
    sha256="ab" * 32,
    decision="reject",
    cause="policy",
    model="demo",
    weights_digest="sha256:0",
    policy_digest=POLICY.digest,
    similarities=((0.6,),),
    rule="stop",
)
texts = st.text(max_size=20)
items = st.builds(
    Recorded,
    id=texts,
    at=st.integers(0, 2**60),
    client=texts,
    client_mode=st.sampled_from(list(Mode)),
    sha256=st.none() | st.just("0f" * 32),
    decision=st.sampled_from(["accept", "reject"]),
    cause=texts,
    model=texts,
    weights_digest=texts,
    policy_digest=texts,
    similarities=st.lists(
        st.lists(st.floats(-1, 1, width=32), max_size=4).map(tuple), max_size=3
    ).map(tuple),
    rule=st.none() | texts,
    flagged=st.booleans(),
    shadow=st.none() | st.sampled_from(list(Action)),
    shadow_rule=st.none() | texts,
    partial=texts,
    excepted=st.lists(texts, max_size=2).map(tuple),
    override_stays=st.booleans(),
    override_gone=st.booleans(),
    override_now=st.sampled_from([None, "allow", "deny"]),
    allowed_now=st.lists(texts, max_size=2).map(tuple),
)
START = start_line(accepts_undecodable=True)


@given(st.lists(items, max_size=3))
def test_decisions_arrive_as_they_were_sent(sent: list[Recorded]) -> None:
    lines = [decision_line(item) for item in sent]
    assert all(line.count(b"\n") == 1 for line in lines)
    stream = RecordedStream([START, *lines, end_line(last=7, more=True)])
    assert stream.accepts_undecodable
    assert list(stream) == sent
    assert (stream.last, stream.more) == (7, True)


def test_policies_arrive_ahead_and_those_that_cannot_be_read_are_left_out() -> None:
    lines = [
        policy_line(POLICY.digest, POLICY.text),
        policy_line("other", "from = 'the future'"),
        decision_line(REJECTED),
        decision_line(replace(REJECTED, policy_digest="other")),
        end_line(last=2, more=False),
    ]
    stream = RecordedStream([START, *lines])
    report = replay(POLICY, stream, stream.policies)
    assert (report.total, dict(report.not_comparable)) == (2, {NO_POLICY: 1})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "broke off"),
        ([START], "broke off"),
        ([START, decision_line(REJECTED)], "broke off"),
        ([START, decision_line(REJECTED)[:40]], "can't be read"),
        ([start_line(accepts_undecodable=True), error_line("locked")], "could not go on: locked"),
        ([end_line(last=0, more=False)], "can't be read"),
        ([START, b'{"decision":{"id":"x"}}\n'], "can't be read"),
        ([START, b'{"surprise":1}\n'], "can't be read"),
        ([START, b"[]\n"], "can't be read"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(lines: list[bytes], message: str) -> None:
    with pytest.raises(RecordedStreamError, match=message):
        list(RecordedStream(lines))


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("30m", 10**16 - 30 * 60 * 10**6),
        ("12h", 10**16 - 12 * 3600 * 10**6),
        ("7d", 10**16 - 7 * 86400 * 10**6),
        ("4w", 10**16 - 28 * 86400 * 10**6),
        ("1234567", 1234567),
        ("9" * 18 + "w", 0),
        ("9" * 18, 10**18 - 1),
    ],
)
def test_how_far_back(text: str, since: int) -> None:
    assert parse_since(text, 10**16) == since


@pytest.mark.parametrize("text", ["", "d", "7y", "-7d", "7 d", "1.5h", "٣d", "9" * 40, "7d\n"])
def test_what_is_no_time_to_look_back(text: str) -> None:
    with pytest.raises(ValueError, match="no time to look back"):
        parse_since(text, 10**16)
    with pytest.raises(ValueError, match="no time to look back"):
        parse_period(text)


def test_a_period_needs_its_unit() -> None:
    assert parse_period("2m") == 120_000_000
    with pytest.raises(ValueError, match="no time to look back"):
        parse_period("7")
