"""Which overrides a file falls under."""

import pytest

from gateway.overrides.matching import Alike, OverrideSet
from imagesafety.scores import PerceptualHash
from tests.gateway.overrides.drafts import (
    ALLOW,
    DENY,
    LOOK,
    flipped,
    override,
    picture,
    sha,
)

OTHER = bytes(reversed(LOOK))


def test_bytes_match_exactly_or_not_at_all() -> None:
    entry = override("1", DENY, sha256=sha(7))
    overrides = OverrideSet([entry, override("2", ALLOW, pdq=LOOK, rule="r")])
    assert overrides.exact(sha(7)) == entry
    assert overrides.exact(sha(6)) is None


def test_what_is_for_bytes_is_not_for_what_looks_alike() -> None:
    overrides = OverrideSet([override("1", DENY, sha256=LOOK)])
    assert overrides.alike([picture(LOOK)], 1) == Alike()


@pytest.mark.parametrize(
    ("bits", "quality", "denied"),
    [(0, 100, True), (31, 50, True), (32, 100, False), (0, 49, False)],
)
def test_a_deny_matches_within_31_bits_and_from_quality_50(
    bits: int, quality: int, denied: bool
) -> None:
    overrides = OverrideSet([override("1", DENY, pdq=LOOK)])
    found = overrides.alike([picture(flipped(LOOK, bits), quality)], 1)
    assert (found.deny is not None) == denied


def test_one_denied_picture_is_enough_to_deny_a_video() -> None:
    overrides = OverrideSet([override("1", DENY, pdq=LOOK)])
    assert overrides.alike([picture(OTHER), picture(LOOK), picture(OTHER, 0)], 900).deny


def test_of_several_denies_the_nearest_is_told() -> None:
    far, near = override("1", DENY, pdq=flipped(LOOK, 9)), override("2", DENY, pdq=LOOK)
    overrides = OverrideSet([far, near])
    assert overrides.alike([picture(flipped(LOOK, 3))], 1).deny == near


def allow_set() -> OverrideSet:
    return OverrideSet([override("1", ALLOW, pdq=LOOK, rule="r")])


@pytest.mark.parametrize(
    "hashes",
    [
        [picture(LOOK)],
        [picture(flipped(LOOK, 31), 50)],
        [picture(LOOK, background="white"), picture(flipped(LOOK, 20), background="black")],
    ],
)
def test_an_allow_is_for_a_picture_that_looks_like_it_in_every_way(
    hashes: list[PerceptualHash],
) -> None:
    assert [entry.id for entry in allow_set().alike(hashes, 1).allows] == ["1"]


@pytest.mark.parametrize(
    ("hashes", "total_frames"),
    [
        ([], 1),
        ([picture(LOOK)], 2),
        ([picture(flipped(LOOK, 32))], 1),
        ([picture(LOOK, 49)], 1),
        ([picture(LOOK, background="white"), picture(OTHER, background="black")], 1),
        ([picture(LOOK, background="white"), picture(LOOK, 10, "black")], 1),
        ([picture(LOOK[:31])], 1),
    ],
)
def test_an_allow_lets_nothing_in_beside_what_it_is_for(
    hashes: list[PerceptualHash], total_frames: int
) -> None:
    assert allow_set().alike(hashes, total_frames).allows == ()


def test_all_pictures_have_to_match_the_same_allow() -> None:
    entries = [override("1", ALLOW, pdq=LOOK, rule="r"), override("2", ALLOW, pdq=OTHER, rule="r")]
    found = OverrideSet(entries).alike([picture(LOOK), picture(OTHER)], 1)
    assert found.allows == ()


def test_several_allows_may_be_for_one_look() -> None:
    entries = [override(rule, ALLOW, pdq=LOOK, rule=rule) for rule in ("r", "s")]
    found = OverrideSet(entries).alike([picture(LOOK)], 1)
    assert {entry.rule for entry in found.allows} == {"r", "s"}


def test_an_allow_without_a_rule_is_for_its_bytes_only() -> None:
    overrides = OverrideSet([override("1", ALLOW, sha256=sha(1), pdq=LOOK)])
    assert overrides.alike([picture(LOOK)], 1) == Alike()
    assert overrides.exact(sha(1))


def test_a_file_can_be_denied_and_allowed_by_its_look() -> None:
    deny = override("2", DENY, pdq=flipped(LOOK, 31))
    found = allow_set().changed([deny], ()).alike([picture(LOOK)], 1)
    assert found.deny == deny
    assert [entry.id for entry in found.allows] == ["1"]


def test_a_changed_set_has_what_was_added_and_not_what_was_removed() -> None:
    first = [
        override(str(number), DENY, sha256=sha(number), pdq=sha(number)) for number in range(3)
    ]
    before = OverrideSet(first)
    new = override("new", ALLOW, sha256=sha(1), pdq=LOOK, rule="r")
    after = before.changed([new], ["0", "1", "unknown"])
    assert [entry.id for entry in after.entries] == ["2", "new"]
    assert (after.exact(sha(0)), after.exact(sha(1)), after.exact(sha(2))) == (None, new, first[2])
    assert after.alike([picture(LOOK)], 1).allows == (new,)
    assert after.get("new") == new
    assert after.get("1") is None
    assert [entry.id for entry in before.entries] == ["0", "1", "2"]
    assert before.exact(sha(1)) == first[1]


def test_a_search_finds_parts_of_texts_and_hashes() -> None:
    entries = [
        override("1", DENY, sha256=sha(255), note="A <b>Meme</b>"),
        override("2", ALLOW, pdq=LOOK, rule="nudity"),
    ]
    overrides = OverrideSet(entries)
    for text, found in {
        "meme": ["1"],
        " NUDITY ": ["2"],
        "00ff": ["1"],
        "0a0b0c": ["2"],
        "somebody": ["1", "2"],
        "%": [],
    }.items():
        assert [entry.id for entry in overrides.search(text)] == found
