"""Trains the demo model from nothing, on drawn pictures: `python -m inference.demo.train`.

Every caption's truth is known for every picture, so the loss is the sigmoid loss of SigLIP (arXiv
2303.15343) over all pairs of a batch's pictures and the caption pool.
Two cores need 23 minutes (`--minutes`); the result is `open_clip_model.safetensors`.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from inference.demo.captions import Caption, caption_pool
from inference.demo.drawing import Scene, canvas_size, random_aspect, random_scene, render

HERE = Path(__file__).parent
WEIGHTS = "open_clip_model.safetensors"
# Evaluation draws from seeds below this, training from seeds at and above it.
FIRST_TRAINING_SEED = 1_000_000
# What the model is for counts most in its loss; the other captions count 1.
KIND_WEIGHTS = {"shape": 4.0, "colour": 2.0, "pair": 3.0}
EMPTY_SHARE = 0.1  # of the pictures show nothing, so that not everything has to be something


def draw_pictures(
    count: int, image_size: int, first_seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, S, S) uint8 and the truth of each caption (N, C) bool, drawn on all cores."""
    images = torch.empty((count, 3, image_size, image_size), dtype=torch.uint8)
    truth = torch.empty((count, len(caption_pool())), dtype=torch.bool)
    step = 1000
    jobs = [
        (min(step, count - at), image_size, first_seed + at // step) for at in range(0, count, step)
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for number, (pixels, holds) in enumerate(pool.map(_draw_some, *zip(*jobs, strict=True))):
            at = number * step
            images[at : at + step] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            truth[at : at + step] = torch.from_numpy(holds)
    return images, truth


def _draw_some(
    count: int, image_size: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    captions = caption_pool()
    pixels = np.empty((count, image_size, image_size, 3), np.uint8)
    truth = np.empty((count, len(captions)), np.bool_)
    for index in range(count):
        scene, picture = draw_example(rng, image_size)
        pixels[index] = np.asarray(picture)
        truth[index] = [caption.holds(scene) for caption in captions]
    return pixels, truth


def draw_example(rng: np.random.Generator, image_size: int) -> tuple[Scene, Image.Image]:
    """A scene, and its picture as the service would see it: any shape, squashed to a square."""
    aspect = random_aspect(rng)
    wanted = () if rng.random() < EMPTY_SHARE else None
    scene = random_scene(rng, wanted, aspect=aspect)
    side = image_size * float(rng.uniform(1.0, 2.0))
    picture = render(scene, *canvas_size(side, aspect))
    return scene, picture.resize((image_size, image_size), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the weights are written beside the config."""

    minutes: float  # of wall-clock time, drawing included
    pictures: int
    batch_size: int
    peak_rate: float
    config_dir: Path
    seed: int


def train(options: TrainingOptions) -> None:
    """Draws, trains and saves."""
    started = time.monotonic()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    model = open_clip.create_model(f"local-dir:{options.config_dir}", load_weights=False)
    model = model.to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{options.config_dir}")
    pool = caption_pool()
    tokens = [tokenizer(list(caption.wordings)) for caption in pool]
    weights = torch.tensor([KIND_WEIGHTS.get(caption.kind, 1.0) for caption in pool])
    weights /= weights.mean()
    spec = model.visual.preprocess_cfg
    mean = torch.tensor(spec["mean"]).view(1, 3, 1, 1) * 255
    std = torch.tensor(spec["std"]).view(1, 3, 1, 1) * 255

    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
        lr=options.peak_rate,
        betas=(0.9, 0.98),
    )
    batch_size = options.batch_size
    first_seed = FIRST_TRAINING_SEED * (1 + options.seed)
    images, truths = draw_pictures(options.pictures, int(spec["size"][0]), first_seed)
    order = torch.empty(0, dtype=torch.long)
    step = 0
    while (progress := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        if len(order) < batch_size:
            order = torch.randperm(len(images))
        chosen, order = order[:batch_size], order[batch_size:]
        truth = truths[chosen].float()
        rate = options.peak_rate * min(1.0, (step + 1) / 300, 0.01 + (1 - progress) / 0.6)
        for group in optimizer.param_groups:
            group["lr"] = rate
        captions = torch.stack([t[int(rng.integers(len(t)))] for t in tokens])
        pixels = images[chosen].float() * torch.empty(batch_size, 1, 1, 1).uniform_(0.92, 1.08)
        pixels += torch.randn_like(pixels) * torch.empty(batch_size, 1, 1, 1).uniform_(0, 5)
        inputs = ((pixels.clamp_(0, 255) - mean) / std).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16):
            image_features = model.encode_image(inputs)
        image_features = F.normalize(image_features.float(), dim=-1)
        text_features = F.normalize(model.encode_text(captions), dim=-1)
        logits = image_features @ text_features.T * model.logit_scale.exp() + model.logit_bias
        loss = F.binary_cross_entropy_with_logits(logits, truth, weight=weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            report(step, step * batch_size, progress, loss, logits, truth, pool)
    save(model, options.config_dir / WEIGHTS)


def keep_freed_memory() -> None:
    """Tells glibc to reuse what is freed; giving it back and faulting it in costs a third."""
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(m_trim_threshold, 2**30)
        libc.mallopt(m_mmap_threshold, 2**25)


def report(
    step: int,
    seen: int,
    progress: float,
    loss: torch.Tensor,
    logits: torch.Tensor,
    truth: torch.Tensor,
    pool: tuple[Caption, ...],
) -> None:
    """Prints the loss and, for each kind of caption, the share of pairs judged wrongly."""
    wrong = ((logits > 0) != (truth > 0.5)).float().mean(0)
    kinds = dict.fromkeys(caption.kind for caption in pool)
    shares = " ".join(
        f"{kind} {float(wrong[[c.kind == kind for c in pool]].mean()):.4f}" for kind in kinds
    )
    line = f"{progress:4.0%} step {step} pictures {seen} loss {loss.item():.4f} | {shares}"
    print(line, flush=True)


def save(model: torch.nn.Module, path: Path) -> None:
    """Writes the weights in half precision, which open_clip reads back into float32."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Reads the options and trains."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--minutes", type=float, default=23, help="wall-clock time (23)")
    parser.add_argument("--pictures", type=int, default=130_000, help="to draw first (130000)")
    parser.add_argument("--batch-size", type=int, default=96, help="pictures a step (96)")
    parser.add_argument("--peak-rate", type=float, default=2e-3, help="learning rate (2e-3)")
    parser.add_argument("--config-dir", type=Path, default=HERE, help="open_clip_config.json here")
    parser.add_argument("--seed", type=int, default=0, help="pictures and initial weights (0)")
    train(TrainingOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
