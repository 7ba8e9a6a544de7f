"""How good the demo model is: `python -m benchmarks.demo_model`.

Draws pictures that no training seed made, scores them as the service does, and prints the AUC of
every shape, colour and pair, and the error rates of policies/demo.toml. The last line is JSON;
with CHECK=1 in the environment a missed goal makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.policy import Policy
from imagesafety.policy_file import find_policy, load_policy
from imagesafety.verdict import judge_image
from inference.concepts import ConceptCache, ConceptEmbeddings, ConceptSet, PromptSet
from inference.decoder.decode import Decoder
from inference.decoder.media import MediaLimits, Request
from inference.demo.captions import Caption, caption_pool
from inference.demo.drawing import Scene, canvas_size, random_aspect, random_scene, render
from inference.encoder import Embeddings, Encoder, EncoderThread
from inference.model_source import parse_model
from inference.open_clip_encoder import OpenClipEncoder

GOAL_AUC = 0.97
GOAL_FALSE_REJECTS = 0.01
GOAL_FALSE_ACCEPTS = 0.03
KINDS = ("shape", "colour", "pair")
BATCH = 64
WHOLE = Request("image/jpeg", max_frames=1, frame_seconds=1.0)

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Quality:
    """Measured on `pictures` drawings. `auc` is per caption; rates are shares from 0 to 1."""

    pictures: int
    auc: dict[str, float]
    false_rejects: float
    false_accepts: float

    @property
    def worst(self) -> tuple[str, float]:
        """The caption with the lowest AUC."""
        return min(self.auc.items(), key=lambda item: item[1])

    @property
    def meets_goals(self) -> bool:
        """Whether all three goals are met."""
        return (
            self.worst[1] >= GOAL_AUC
            and self.false_rejects <= GOAL_FALSE_REJECTS
            and self.false_accepts <= GOAL_FALSE_ACCEPTS
        )


def measure(encoder: Encoder, policy: Policy, pictures: int, seed: int) -> Quality:
    """Draws `pictures` pictures from `seed` and measures model and policy on them."""
    scenes, embeddings = _draw_and_encode(encoder, pictures, seed)
    captions = [caption for caption in caption_pool() if caption.kind in KINDS]
    auc = {
        caption.wordings[1]: area_under_curve(
            embeddings @ encoder.encode_texts([caption.wordings[1]])[0], _truth(caption, scenes)
        )
        for caption in captions
    }
    rejected = _rejections(encoder, policy, embeddings)
    bad = np.array([_is_rejectable(scene) for scene in scenes])
    return Quality(pictures, auc, float(rejected[~bad].mean()), float((~rejected[bad]).mean()))


def _draw_and_encode(encoder: Encoder, pictures: int, seed: int) -> tuple[list[Scene], Embeddings]:
    rng = np.random.default_rng(seed)
    limits = MediaLimits(max_pixels=1_000_000, max_frames=1, max_seconds=1.0)
    decoder = Decoder(encoder.description.preprocessing, limits, random.Random(seed))  # noqa: S311
    scenes: list[Scene] = []
    views: list[bytes] = []
    for _ in range(pictures):
        aspect = random_aspect(rng)
        scene = random_scene(rng, aspect=aspect)
        picture = render(scene, *canvas_size(int(rng.integers(128, 400)), aspect))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=int(rng.integers(80, 96)))
        [pixels] = decoder.decode(data.getvalue(), WHOLE).pixels
        scenes.append(scene)
        views.append(pixels)
    batches = [
        encoder.encode_images(views[start : start + BATCH]) for start in range(0, pictures, BATCH)
    ]
    return scenes, np.concatenate(batches)


def _truth(caption: Caption, scenes: Sequence[Scene]) -> Booleans:
    return np.array([caption.holds(scene) for scene in scenes])


def area_under_curve(scores: Embeddings, truth: Booleans) -> float:
    """The chance that a picture of which it is true scores higher than one of which it is not.

    The rank statistic of Mann and Whitney; ties, which float cosines hardly have, are not split.
    """
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = int(truth.sum())
    below = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(below / (positives * (len(scores) - positives)))


def _rejections(encoder: Encoder, policy: Policy, embeddings: Embeddings) -> Booleans:
    concepts = asyncio.run(_embed_concepts(encoder, policy))
    rows = concepts.similarities(embeddings).tolist()
    return np.array([judge_image(policy, [row]).rejects for row in rows])


async def _embed_concepts(encoder: Encoder, policy: Policy) -> ConceptEmbeddings:
    """The policy's concepts, embedded by the service's own code."""
    thread = EncoderThread(encoder)
    cache = ConceptCache(thread.encode_texts, max_sets=1, text_batch=8)
    prompts = [concept.prompts for concept in policy.concepts]
    sets = (PromptSet(tuple(p.text for p in ps), tuple(p.weight for p in ps)) for ps in prompts)
    try:
        return await cache.embed(ConceptSet(tuple(sets)))
    finally:
        await thread.close()


def _is_rejectable(scene: Scene) -> bool:
    """What policies/demo.toml is there to reject: something red and a triangle in one picture."""
    return any(drawn.colour == "red" for drawn in scene.objects) and any(
        drawn.shape == "triangle" for drawn in scene.objects
    )


def main() -> int:
    """Measures and prints; the exit code."""
    parser = argparse.ArgumentParser(description="Measure the demo model on fresh drawings.")
    parser.add_argument("--pictures", type=int, default=6000, help="how many to draw (6000)")
    parser.add_argument("--seed", type=int, default=1, help="under a million, training's (1)")
    parser.add_argument("--model", default="demo", help="as the service's setting (demo)")
    options = parser.parse_args()
    encoder = OpenClipEncoder(options.model, parse_model(options.model), device="cpu")
    policy = load_policy(find_policy("demo"))
    quality = measure(encoder, policy, options.pictures, options.seed)
    for name, value in sorted(quality.auc.items(), key=lambda item: item[1]):
        print(f"AUC {value:.4f}  {name}")
    print(f"false rejects {quality.false_rejects:.2%}, false accepts {quality.false_accepts:.2%}")
    rows = [
        {"row": "lowest AUC", "measured": quality.worst[1], "goal": GOAL_AUC},
        {"row": "false rejects", "measured": quality.false_rejects, "goal": GOAL_FALSE_REJECTS},
        {"row": "false accepts", "measured": quality.false_accepts, "goal": GOAL_FALSE_ACCEPTS},
    ]
    print(json.dumps({"benchmark": "demo-model", "pictures": quality.pictures, "rows": rows}))
    return 1 if os.environ.get("CHECK") == "1" and not quality.meets_goals else 0


if __name__ == "__main__":
    sys.exit(main())
