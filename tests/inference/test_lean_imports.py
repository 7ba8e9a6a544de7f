"""Packages that open_clip brings with it are imported only for models that need it."""

import json
import subprocess
import sys

import pytest

HEAVY = ("timm", "transformers", "torch._dynamo", "sympy", "onnx", "onnxruntime", "openvino")

SCRIPT = """
import json, sys
from inference.lean_imports import import_open_clip
from inference.model_source import parse_model

import_open_clip(parse_model(sys.argv[1]), device="cpu", backend=sys.argv[2])
print(json.dumps([name for name in sys.argv[3:] if name in sys.modules]))
"""
LATER = """
import timm, torch, transformers, torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported("cpu") is not None
assert torch.compiler.disable.__module__ == "torch.compiler"
"""


def imported(model: str, backend: str, script: str = SCRIPT) -> set[str]:
    """Return the heavy packages that open_clip was imported with."""
    command = [sys.executable, "-c", script, model, backend, *HEAVY]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("model", "backend", "packages"),
    [
        ("ViT-L-14/openai", "auto", set()),
        ("ViT-B-16-SigLIP2-256/webli", "auto", {"timm"}),
        ("ViT-L-14/openai", "compiled", {"torch._dynamo", "sympy"}),
    ],
)
def test_what_a_model_does_not_need_is_left_out(
    model: str, backend: str, packages: set[str]
) -> None:
    assert imported(model, backend) == packages


@pytest.mark.parametrize("model", ["xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "unknown/openai"])
def test_what_it_needs_or_may_need_is_not(model: str) -> None:
    assert "transformers" in imported(model, "auto")


def test_all_that_was_left_out_can_be_imported_later() -> None:
    assert imported("demo", "pytorch", SCRIPT + LATER) == {"timm"}
