"""What may become an override, and the one that is made from a decision."""

from dataclasses import replace

import pytest

from gateway.ledger.record import DecisionRecord, ScoredBy, Timings
from gateway.overrides.entries import (
    NewOverride,
    OverrideError,
    as_json,
    checked_author,
    entry_from_decision,
    from_json,
    hash_from_hex,
)
from imagesafety.policy import Mode
from imagesafety.scores import PerceptualHash, View
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, flipped, override, sha

OTHER = bytes(reversed(LOOK))
RECORD = DecisionRecord(
    id="a" * 32,
    at=1,
    client="IPADDR",
    client_mode=Mode.ENFORCE,
    sha256=sha(1),
    size=1,
    media_type="image/png",
    decision="reject",
    cause="policy",
    message="",
    timings=Timings(1.0),
    scored_by=ScoredBy("p", "c", "demo", "w"),
    rule="r",
    frames=1,
    total_frames=1,
    deciding_view=0,
    views=(View(0, 0.0, (0, 0, 1, 1), (0.5,)),),
    perceptual_hashes=(PerceptualHash(LOOK, 80),),
)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (NewOverride(ALLOW), "needs a SHA-256 or a PDQ hash"),
        (NewOverride(DENY, sha256=b"short"), "32 bytes, not 5"),
        (NewOverride(DENY, pdq=bytes(33)), "32 bytes, not 33"),
        (NewOverride(ALLOW, pdq=LOOK), "needs the rule"),
        (NewOverride(ALLOW, sha(1), LOOK, " "), "needs the rule"),
        (NewOverride(DENY, pdq=LOOK, rule="r"), "only for an allow by PDQ"),
        (NewOverride(ALLOW, sha(1), rule="r"), "only for an allow by PDQ"),
        (NewOverride(DENY, sha(1), note="x" * 1001), "1001 characters; 1000"),
        (NewOverride(DENY, sha(1), note="a\0b"), "control characters"),
        (NewOverride(DENY, sha(1), note="a\nb"), "line breaks"),
        (NewOverride(DENY, sha(1), note="a\ud800b"), "control characters"),
        (NewOverride(ALLOW, pdq=LOOK, rule="a\x1bb"), "control characters"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: NewOverride, reason: str) -> None:
    with pytest.raises(OverrideError, match=reason):
        entry.checked()


def test_texts_lose_only_the_space_around_them() -> None:
    text = "'; DROP TABLE overrides; -- <script>alert(1)</script> ünïcödé 🐈"
    entry = NewOverride(ALLOW, pdq=LOOK, rule=f" {text} ", note=f"\t{text}  ").checked()
    assert (entry.rule, entry.note) == (text, text)


@pytest.mark.parametrize(
    ("who", "why", "reason"),
    [
        ("", "because", "say who"),
        ("me", "  ", "say why"),
        ("x" * 129, "because", "129 characters"),
        ("me", "a\rb", "line breaks"),
    ],
)
def test_every_change_has_an_author_and_a_reason(who: str, why: str, reason: str) -> None:
    with pytest.raises(OverrideError, match=reason):
        checked_author(who, why)


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "ab " * 21 + "a", "٣" * 64, "0" * 65])
def test_a_hash_is_64_hexadecimal_digits(text: str) -> None:
    with pytest.raises(OverrideError, match="SHA-256 has 64 hexadecimal digits"):
        hash_from_hex("SHA-256", text)


def test_json_keeps_an_entry() -> None:
    entries = [
        override("1", DENY, sha256=sha(1), note='"quoted" <b>'),
        override("2", ALLOW, pdq=LOOK, rule="r"),
    ]
    assert [from_json(as_json(entry)) for entry in entries] == entries


def test_an_override_by_bytes_from_a_decision() -> None:
    entry = entry_from_decision(RECORD, ALLOW, note="a meme")
    assert entry == NewOverride(ALLOW, sha(1), None, None, "a meme", "a" * 32)


def test_a_perceptual_allow_is_for_the_rule_that_held() -> None:
    entry = entry_from_decision(RECORD, ALLOW, perceptual=True)
    assert (entry.sha256, entry.pdq, entry.rule) == (sha(1), LOOK, "r")
    in_shadow = replace(RECORD, rule=None, shadow_rule="s")
    assert entry_from_decision(in_shadow, ALLOW, perceptual=True).rule == "s"


def test_a_perceptual_deny_has_no_rule() -> None:
    entry = entry_from_decision(RECORD, DENY, perceptual=True)
    assert (entry.sha256, entry.pdq, entry.rule) == (sha(1), LOOK, None)


def two(first: PerceptualHash, second: PerceptualHash) -> DecisionRecord:
    return replace(RECORD, perceptual_hashes=(first, second))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(RECORD, sha256=None), "did not come whole"),
        (replace(RECORD, rule=None), "no rule held"),
        (replace(RECORD, total_frames=2), "animations and videos"),
        (replace(RECORD, perceptual_hashes=()), "no perceptual hash"),
        (replace(RECORD, perceptual_hashes=(PerceptualHash(LOOK, 49),)), "too little"),
        (two(PerceptualHash(LOOK, 80), PerceptualHash(OTHER, 80)), "looks different"),
        (two(PerceptualHash(LOOK, 80), PerceptualHash(LOOK, 9)), "too little"),
    ],
)
def test_what_can_not_be_allowed_by_its_look(record: DecisionRecord, reason: str) -> None:
    with pytest.raises(OverrideError, match=reason):
        entry_from_decision(record, ALLOW, perceptual=True)


def test_of_a_video_the_picture_is_denied_that_a_rule_held_for() -> None:
    hashes = (PerceptualHash(LOOK, 80, 0), PerceptualHash(OTHER, 80, 7))
    views = (RECORD.views[0], replace(RECORD.views[0], frame_index=7))
    video = replace(RECORD, perceptual_hashes=hashes, total_frames=9, views=views)
    assert entry_from_decision(video, DENY, perceptual=True).pdq == LOOK
    assert entry_from_decision(replace(video, deciding_view=1), DENY, perceptual=True).pdq == OTHER
    with pytest.raises(OverrideError, match="several pictures"):
        entry_from_decision(replace(video, deciding_view=None), DENY, perceptual=True)
    plain = replace(video, perceptual_hashes=(PerceptualHash(LOOK, 3, 0), hashes[1]))
    with pytest.raises(OverrideError, match="too little"):
        entry_from_decision(plain, DENY, perceptual=True)


def test_an_opaque_region_of_a_partly_transparent_picture_is_denied_by_all_of_it() -> None:
    hashes = (PerceptualHash(LOOK, 80, 0, "white"), PerceptualHash(OTHER, 80, 0, "black"))
    record = replace(RECORD, perceptual_hashes=hashes)
    assert record.views[0].background == ""
    assert entry_from_decision(record, DENY, perceptual=True).pdq == LOOK


def test_backgrounds_that_look_the_same_are_one_look() -> None:
    hashes = (
        PerceptualHash(LOOK, 80, 0, "white"),
        PerceptualHash(flipped(LOOK, 31), 80, 0, "black"),
    )
    views = (replace(RECORD.views[0], background="white"),)
    record = replace(RECORD, perceptual_hashes=hashes, views=views)
    assert entry_from_decision(record, ALLOW, perceptual=True).pdq == LOOK
