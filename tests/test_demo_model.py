"""The bundled model and its policy, on pictures that no training seed made."""

from benchmarks.demo_model import GOAL_AUC, measure
from imagesafety.policy_file import find_policy, load_policy
from inference.demo.train import FIRST_TRAINING_SEED
from inference.model_source import DEMO_FOLDER, parse_model
from inference.open_clip_encoder import OpenClipEncoder

SEED = 4711


def test_the_demo_model_knows_shapes_and_colours() -> None:
    assert SEED < FIRST_TRAINING_SEED
    encoder = OpenClipEncoder("demo", parse_model("demo"), device="cpu")
    quality = measure(encoder, load_policy(find_policy("demo")), 3000, SEED)
    assert len(quality.auc) == 6 + 6 + 36
    assert quality.worst[1] >= GOAL_AUC, quality.worst
    assert quality.false_rejects <= 0.01
    assert quality.false_accepts <= 0.03


def test_the_weights_are_small_enough_to_ship() -> None:
    assert (DEMO_FOLDER / "open_clip_model.safetensors").stat().st_size < 16_000_000
