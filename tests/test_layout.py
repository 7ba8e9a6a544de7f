"""Dependencies point one way, and the gateway needs nothing of what inference needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import fetch, free_port, wait_until

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "open_clip", "PIL", "numpy", "inference")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_by(package: str) -> set[str]:
    """What the modules of a package import."""
    return set().union(*(imports(path) for path in (ROOT / package).rglob("*.py")))


def importing(package: str, name: str) -> set[str]:
    """The modules of a package that import something below `name`."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        if any(f"{module}.".startswith(f"{name}.") for module in imports(path))
    }


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("gateway", "inference"),
        ("inference", "gateway"),
        ("imagesafety", "gateway"),
        ("imagesafety", "inference"),
        ("imagesafety", "telemetry"),
        *(("telemetry", name) for name in ("gateway", "imagesafety")),
        *(("gateway", name) for name in HEAVY),
        *(("imagesafety", name) for name in HEAVY if name != "numpy"),
        *(("telemetry", name) for name in HEAVY),
    ],
)
def test_who_imports_whom(package: str, name: str) -> None:
    assert importing(package, name) == set()


def test_the_library_needs_numpy_only_where_figures_are_made_of_scores() -> None:
    """The gateway's image, which has the library, has no numpy."""
    found = {path.split("/")[1] for path in importing("imagesafety", "numpy")}
    assert found <= {"calibration", "evaluation"}
    for package in ("calibration", "evaluation", "stored"):
        assert importing("gateway", f"imagesafety.{package}") == set()


@pytest.mark.parametrize("name", ["asyncssh", "cryptography", "fsspec", "s3fs", "sshfs"])
def test_stores_are_reached_in_one_package(name: str) -> None:
    assert all(path.startswith("imagesafety/stored/") for path in importing("imagesafety", name))


def test_a_command_needs_only_the_packages_that_it_uses() -> None:
    code = "import sys, imagesafety.command; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"asyncssh", "cryptography", "fsspec", "httpx", "numpy", "tqdm"} & set(loaded)


def test_inference_uses_the_generated_code_and_nothing_else_of_the_library() -> None:
    assert importing("inference", "imagesafety") == importing("inference", "imagesafety.v1")


def test_few_modules_of_the_service_import_torch() -> None:
    training = {"inference/demo/train.py"}
    models = {"inference/open_clip_model.py"}
    towers = {
        f"inference/backends/{name}.py"
        for name in ("cuda_tower", "loading", "onnx_export", "pytorch_tower")
    }
    assert importing("inference", "open_clip") - training == models
    assert importing("inference", "torch") - training == models | towers | {
        "inference/lean_imports.py",
        "inference/open_clip_encoder.py",
    }


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("onnx", {"quantisation"}),
        ("onnxruntime", {"onnxruntime_tower", "quantisation"}),
        ("openvino", {"openvino_tower"}),
    ],
)
def test_a_backend_is_in_a_module_of_its_own(package: str, modules: set[str]) -> None:
    assert importing("inference", package) == {f"inference/backends/{name}.py" for name in modules}


def test_a_decoder_process_has_nothing_of_the_service() -> None:
    code = "import sys, inference.decoder.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"av", "PIL"} <= set(loaded)
    assert not {"grpc", "torch", "open_clip", "asyncio", "imagesafety"} & set(loaded)


def test_the_service_has_no_decoder_in_its_process() -> None:
    code = "import sys, inference.server; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"av", "PIL", "pillow_jxl"} & set(loaded)


def test_the_gateway_starts_where_torch_is_not_installed(tmp_path: Path) -> None:
    address, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from gateway.server import main
flags = ["--listen", {address!r}, "--admin-listen", {admin!r}, "--data-folder", {str(tmp_path)!r}]
sys.exit(main(flags))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: fetch(f"http://{address}/livez")[0] == 200, "start of the gateway", 30)
    finally:
        process.terminate()
        assert process.wait(20) == 0
