"""The encoder agrees with open_clip called directly, wherever the weights come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from inference.demo.drawing import random_scene, render
from inference.model_source import DEMO_FOLDER, ModelError, parse_model
from inference.open_clip_encoder import OpenClipEncoder
from tests.inference.decoder.test_decode import pixels
from tests.media import still

TEXTS = ["a red triangle", "something blue", "nothing that it knows", "a " * 100]
# Two towers of open_clip's own, with its usual centre crop, small enough for a test.
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    # Squares, of which a centre crop takes nothing away.
    return [render(random_scene(rng), side, side) for side in (100, 64, 500, 33)]


def load(setting: str) -> OpenClipEncoder:
    return OpenClipEncoder(setting, parse_model(setting), device="cpu")


def assert_agrees(
    encoder: OpenClipEncoder, model: Any, tokenizer: Any, pictures: list[Image.Image]
) -> None:
    wanted = PreprocessCfg(**model.visual.preprocess_cfg)
    preprocess = image_transform_v2(wanted, is_train=False)
    spec = encoder.description.preprocessing
    views = [pixels(still(p), spec).tobytes() for p in pictures]
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_images(views), images.numpy(), atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts.numpy(), atol=1e-4)


def test_the_demo_model_agrees_with_open_clip(pictures: list[Image.Image]) -> None:
    name = f"local-dir:{DEMO_FOLDER}"
    model, tokenizer = open_clip.create_model(name), open_clip.get_tokenizer(name)
    encoder = load("demo")
    assert_agrees(encoder, model, tokenizer, pictures)
    assert encoder.description.backend == "pytorch-cpu-float32"
    assert encoder.description.embedding_width == 128


@pytest.mark.parametrize("wrapped", [False, True], ids=["model config", "with preprocessing"])
def test_a_config_and_a_checkpoint_file(
    wrapped: bool, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    content: dict[str, Any] = TINY
    if wrapped:
        preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "longest"}
        content = {"model_cfg": TINY, "preprocess_cfg": preprocess}
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    folder = tmp_path / "reference"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY} | content))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{folder}")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    encoders = [load(f"{tmp_path}/tiny.json@{tmp_path}/{w}") for w in ("w.pt", "w.safetensors")]
    for encoder in encoders:
        assert_agrees(encoder, model, open_clip.get_tokenizer(f"local-dir:{folder}"), pictures)
    digests = {encoder.description.weights_digest for encoder in encoders}
    assert len(digests) == 1, "the digest is of the weights, not of the file"
    assert digests != {load("demo").description.weights_digest}


def test_a_named_architecture_and_a_checkpoint_file(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    torch.manual_seed(2)
    model = open_clip.create_model("RN50")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert_agrees(
        load(f"RN50@{tmp_path}/w.pt"), model, open_clip.get_tokenizer("RN50"), pictures[:2]
    )


def test_a_tag_brings_the_activation_that_its_weights_were_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[Image.Image]
) -> None:
    """open_clip's ViT-B-32/openai computes something else than OpenAI's model, and only warns."""
    torch.manual_seed(3)
    model = open_clip.create_model("ViT-B-32-quickgelu")
    torch.save(model.state_dict(), tmp_path / "openai.pt")
    # What a download would bring, without the network.
    monkeypatch.setattr(
        open_clip.factory, "download_pretrained", lambda *_, **__: str(tmp_path / "openai.pt")
    )
    encoder = load("ViT-B-32/openai")
    assert_agrees(encoder, model, open_clip.get_tokenizer("ViT-B-32"), pictures[:2])


def test_lower_precision_stays_close(pictures: list[Image.Image]) -> None:
    spec = load("demo").description.preprocessing
    views = [pixels(still(p), spec).tobytes() for p in pictures]
    exact = load("demo").encode_images(views)
    low = OpenClipEncoder("demo", parse_model("demo"), device="cpu", precision="bfloat16")
    assert low.description.backend == "pytorch-cpu-bfloat16"
    assert (exact * low.encode_images(views)).sum(1).min() > 0.99


def test_scores_do_not_depend_on_the_batch(pictures: list[Image.Image]) -> None:
    encoder = load("demo")
    spec = encoder.description.preprocessing
    views = [pixels(still(p), spec).tobytes() for p in pictures]
    alone = np.concatenate([encoder.encode_images([view]) for view in views])
    np.testing.assert_allclose(encoder.encode_images(views), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("NoSuchArch/openai", "no architecture 'NoSuchArch'"),
        ("ViT-B-32/no-such-tag", "knows the tags openai"),
        ("ViT-B-32@{folder}/garbage.pt", "can't be loaded"),
        ("{folder}/broken.json@{folder}/garbage.pt", "can't be loaded"),
        ("{folder}/tiny.json@{folder}/other.pt", "can't be loaded"),
        ("{folder}/grey.json@{folder}/right.pt", "can't be loaded"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(
    setting: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "garbage.pt").write_bytes(b"no weights at all")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    torch.save({"positional_embedding": torch.zeros(3)}, tmp_path / "other.pt")
    grey = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5], "std": [0.5]}}
    (tmp_path / "grey.json").write_text(json.dumps(grey))
    torch.save(open_clip.CLIP(**TINY).state_dict(), tmp_path / "right.pt")
    with pytest.raises(ModelError) as caught:
        load(setting.format(folder=tmp_path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
