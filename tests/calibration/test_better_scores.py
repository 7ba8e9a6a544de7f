"""Better scores: what wins on images held out is kept, and nothing else."""

import hashlib
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from imagesafety.calibration.better_report import comparison_lines, kept_lines
from imagesafety.calibration.better_scores import Improvement, for_thresholds, improve
from imagesafety.calibration.comparison import Kind
from imagesafety.calibration.labelled import Part, image_maxima
from imagesafety.calibration.truth import Source
from imagesafety.evaluation.collected import NO, YES
from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from imagesafety.probe_file import parse_probe
from tests.calibration.embedded import World, asked_for, policy_with, unit

TEXTS = {
    "good": (1.0,),
    "poor": (0.1, 1.0),
    "misled": (1.0, 2.0),
    "neutral": (0.0, 2.0),
    "noise": (0.0, 0.0, 1.0),
    "other": (0.0, 0.0, 0.0, 1.0),
}


def improved(policy: Policy, world: World, *neutral: str, **labels: bool) -> Improvement:
    asked = asked_for(policy, *neutral)
    return improve(policy, asked, world.labelled(asked, TEXTS, **labels), "2025-01-02")


def kept(found: Improvement, concept: str = "thing") -> Kind:
    (kind,) = (one.kept for one in found.comparisons if one.concept == concept)
    return kind


def test_where_the_prompt_is_right_nothing_is_kept() -> None:
    for seed in range(5):
        policy = policy_with('["good"]')
        found = improved(policy, World(seed, 1500), "neutral")
        assert kept(found) is Kind.RAW
        assert not found.is_any
        assert (found.text, found.policy, found.probes) == (policy.text, policy, {})


def test_where_the_prompt_is_poor_a_probe_wins_and_is_what_the_service_needs() -> None:
    policy, world = policy_with('["poor"]'), World(1, 1500)
    found = improved(policy, world)
    assert kept(found) is Kind.PROBE
    (concept, other) = found.policy.concepts
    assert other == policy.concepts[1]
    assert concept.probe is not None
    [(name, data)] = found.probes.items()
    read = parse_probe(data)
    assert concept.probe.file == name
    assert concept.probe.sha256 == hashlib.sha256(data).hexdigest()
    assert (read.vector, read.bias) == (concept.probe.vector, concept.probe.bias)
    assert (read.model, read.weights_digest) == (policy.model, policy.weights_digest)
    assert read.trained is not None
    assert read.trained.date == "2025-01-02"
    assert np.linalg.norm(read.vector) == pytest.approx(1, abs=1e-5)
    # It is what the service would compute with it.
    cosines = world.embeddings @ np.array(read.vector, np.float32)
    wanted = np.clip(cosines + np.float32(read.bias), -1, 1)
    np.testing.assert_allclose(found.similarities[:, 0], wanted, atol=1e-6)
    assert read.vector[0] > 0.8  # the thing's axis
    # And the file says the same as the policy.
    assert parse_policy(found.text).concepts == found.policy.concepts
    assert '# thing = ["poor"]\n' in found.text


def test_a_prompt_that_misleads_is_left_out_by_weights() -> None:
    policy = policy_with('["good", "noise", "misled"]')
    found = improved(policy, World(2, 1500))
    assert kept(found) in (Kind.WEIGHTS, Kind.PROBE)
    (comparison, _) = found.comparisons
    weights = next(one for one in comparison.outcomes if one.kind is Kind.WEIGHTS)
    assert weights.gain is not None
    assert weights.gain.difference > 0
    assert weights.gain.chance < 0.001


def test_weights_give_what_the_service_would_with_them() -> None:
    policy, world = policy_with('{ prompts = ["noise", "good"], weights = [3, 1] }'), World(3, 3000)
    found = improved(policy, world)
    assert kept(found) is Kind.WEIGHTS
    again = world.labelled(asked_for(found.policy), TEXTS).sample.similarities
    np.testing.assert_allclose(found.similarities, again[:, :2], atol=2e-6)
    document = tomllib.loads(found.text)["concepts"]["thing"]
    assert document["weights"][document["prompts"].index("good")] == 1.0
    assert found.probes == {}


def test_contrast_takes_away_what_the_prompt_shares_with_all_pictures_that_look_alike() -> None:
    # A probe would find as much; of both, the simpler is kept.
    found = improved(policy_with('["misled"]'), World(4, 1500), "neutral")
    assert kept(found) is Kind.CONTRAST
    (comparison, _) = found.comparisons
    assert [one.kind for one in comparison.outcomes] == [Kind.RAW, Kind.CONTRAST, Kind.PROBE]
    assert "less a neutral one" in str(parse_probe(*found.probes.values()).trained)


def test_the_most_similar_of_several_views_counts() -> None:
    policy, world = policy_with('["poor"]'), World(5, 2000, views=4, strength=1.0)
    found = improved(policy, world)
    assert kept(found) is Kind.PROBE
    asked = asked_for(policy)
    sample = world.labelled(asked, TEXTS).sample
    tops = image_maxima(sample, found.similarities[:, 0])
    assert tops[world.shows].mean() > tops[~world.shows].mean() + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_mean_nothing_teach_nothing(seed: int) -> None:
    world = World(seed, 1500)
    world.shows = np.random.default_rng(100 + seed).random(1500) < 0.3
    assert not improved(policy_with('["good", "noise"]'), world, "neutral").is_any


def test_accept_and_reject_stand_in_for_labels_of_a_concept_that_decides_alone() -> None:
    policy, world = policy_with('["poor"]'), World(6, 1500)
    found = improved(policy, world, by_concept=False)
    assert kept(found) is Kind.PROBE
    (thing, other) = found.comparisons
    assert thing.source is Source.DECISION
    assert "decides nothing alone" in other.problem
    assert "by labels of accept and reject" in str(parse_probe(*found.probes.values()).trained)
    two = policy.text.replace("[groups.g]", "[groups.h]\nthresholds = { other = 0 }\n[groups.g]")
    both = parse_policy(two.replace('all = ["g"]', 'all = ["g", "h"]'))
    found = improved(both, world, by_concept=False)
    assert not found.is_any
    assert all("decides nothing alone" in one.problem for one in found.comparisons)


def test_too_few_images_say_nothing() -> None:
    (comparison, _) = improved(policy_with('["poor"]'), World(7, 60)).comparisons
    assert comparison.problem.startswith("too few images")
    assert comparison.outcomes == ()


def test_other_numbers_of_the_policy_follow_the_new_scores() -> None:
    text = (
        policy_with('["poor"]')
        .text.replace("thing = 0.2", "thing = 0.35")
        .replace(
            "[groups.g]",
            "[[adjustments]]\nwhen = { thing = 0.3 }\nadd = { thing = 0.01 }\n[groups.g]",
        )
    )
    policy, world = parse_policy(text), World(8, 3000)
    found = improved(policy, world)
    assert kept(found) is Kind.PROBE
    assert parse_policy(found.text).groups == policy.groups  # the text has the old numbers
    harmless = ~world.shows
    for before, after in (
        (0.35, found.policy.groups["g"].thresholds["thing"]),
        (0.3, found.policy.adjustments[0].when["thing"]),
    ):
        old = world.labelled(asked_for(policy), TEXTS).sample.similarities[:, 0]
        assert (old[harmless] >= before).mean() == pytest.approx(
            (found.similarities[harmless, 0] >= after).mean(), abs=0.03
        )


def test_thresholds_are_left_images_that_had_no_say() -> None:
    policy, world = policy_with('["poor"]'), World(9, 3000)
    asked = asked_for(policy)
    material = world.labelled(asked, TEXTS)
    found = improve(policy, asked, material, "")
    accepted, rejected = for_thresholds(found, material)
    learned = {material.sample.hashes[n] for n in np.flatnonzero(material.of(Part.TRAIN))}
    compared = {material.sample.hashes[n] for n in np.flatnonzero(material.of(Part.COMPARE))}
    assert not learned & {*accepted.hashes, *rejected.hashes}
    assert not compared & set(accepted.hashes)
    assert len(accepted) == pytest.approx(0.4 * (~world.shows).sum(), abs=5)
    assert accepted.similarities.shape[1] == 2
    # Where nothing is better, all of them are there.
    good = policy_with('["good"]')
    material = world.labelled(asked_for(good), TEXTS)
    accepted, rejected = for_thresholds(improve(good, asked_for(good), material, ""), material)
    assert (len(accepted), len(rejected)) == (int((~world.shows).sum()), int(world.shows.sum()))


def test_parts_are_alike_for_all_labels_and_in_every_run() -> None:
    world = World(10, 2000)
    material = world.labelled(asked_for(policy_with('["good"]')), TEXTS)
    turned = replace(
        material,
        sample=replace(material.sample, hashes=material.sample.hashes[::-1]),
        rejects=material.rejects[::-1].copy(),
        shows=material.shows[::-1].copy(),
    )
    assert (turned.parts[::-1] == material.parts).all()
    for label, shares in ((NO, (0.3, 0.3, 0.4)), (YES, (0.5, 0.5, 0))):
        parts = material.parts[material.rejects == label]
        for part, share in zip(Part, shares, strict=True):
            assert (parts == part).mean() == pytest.approx(share, abs=0.01)


def test_a_concept_that_has_a_probe_already_may_get_a_better_one() -> None:
    world = World(11, 1500)
    before = improved(policy_with('["poor"]'), world)
    name, data = next(iter(before.probes.items()))
    # Spoilt, so that there is something to win.
    probe = before.policy.concepts[0].probe
    assert probe is not None
    assert probe.vector is not None
    vector = unit(np.array(probe.vector) + 2 * np.eye(len(probe.vector))[2])
    spoilt = replace(probe, vector=tuple(vector.tolist()))
    concepts = (replace(before.policy.concepts[0], probe=spoilt), before.policy.concepts[1])
    policy = replace(before.policy, concepts=concepts)
    asked = asked_for(policy)
    material = world.labelled(asked_for(policy_with('["poor"]')), TEXTS)
    material.sample.similarities[:, 0] = world.embeddings @ vector + np.float32(spoilt.bias)
    found = improve(policy, asked, material, "")
    assert kept(found) is Kind.PROBE
    assert set(found.probes) != {name}
    assert f'# thing = {{ probe = "{name}"' in found.text
    assert hashlib.sha256(data).hexdigest() in found.text


def test_numbers_of_another_model_are_left_to_carrying() -> None:
    policy, world = policy_with('["poor"]'), World(12, 1500)
    asked = asked_for(policy)
    found = improve(policy, asked, world.labelled(asked, TEXTS), "", translates=False)
    assert kept(found) is Kind.PROBE
    assert found.policy.groups == policy.groups


def test_the_table_says_what_is_kept_and_why_not() -> None:
    policy, world = policy_with('["misled", "noise"]'), World(13, 1500)
    lines = list(comparison_lines(improved(policy, world, "neutral")))
    [chosen] = [line for line in lines if line.endswith("kept")]
    assert "too few to say" in chosen
    assert [line[2:].split("  ")[0] for line in lines if "(0." in line] == list(Kind)
    assert (
        "other: stays as it is, no image is labelled with it, and it decides nothing alone" in lines
    )
    fewer = improved(policy, World(14, 60), "neutral")
    assert any("too few images to learn from" in line for line in comparison_lines(fewer))
    assert list(kept_lines(fewer)) == [
        "Nothing is better beyond noise, so all scores stay as they are."
    ]


def test_too_few_views_to_know_the_texts_by_are_told_of() -> None:
    policy, world = policy_with('["poor"]'), World(15, 1500)
    world.embeddings[:, 20] = 0
    assert any("known in part only" in note for note in improved(policy, world).notes)
