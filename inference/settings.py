"""Every setting of the service: IMAGESAFETY_INFERENCE_… variables, and flags of the same names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from inference.backends.cache import default_cache_folder
from inference.embedding_access import EmbeddingsSetting
from telemetry.logs import LogFormat

PREFIX = "IMAGESAFETY_INFERENCE_"


class Settings(BaseSettings):
    """The gRPC service that scores images.

    Each flag is also an environment variable: --max-batch is IMAGESAFETY_INFERENCE_MAX_BATCH.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        cli_prog_name="python -m inference",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    listen: str = Field(
        "127.0.0.1:50051", description="address and port, or unix:/path/of/a/socket"
    )
    metrics_listen: str = Field(
        "", description="address and port for /metrics, /livez and /readyz over HTTP; empty: none"
    )
    model: str = Field(
        "demo",
        description="ARCH/TAG as open_clip names them, ARCH@FILE (an open_clip architecture or a "
        "JSON config of one, and a checkpoint), or demo",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="what computes")
    backend: Literal["auto", "pytorch", "compiled", "cuda-graphs", "onnxruntime", "openvino"] = (
        Field(
            "auto",
            description="what runs the model's image tower; auto: the fastest that agrees with "
            "PyTorch in float32, measured at the first start",
        )
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="auto: what is chosen with backend auto; with a backend by name float32 on a "
        "CPU, bfloat16 or float16 on CUDA",
    )
    backend_seconds: float = Field(
        300.0, gt=0, description="after how long the choice of a backend tries no further one"
    )
    cache_folder: Path = Field(
        default_cache_folder(),
        description="folder that keeps the choice of a backend, the model that was made for it "
        "and how long batches take",
    )
    calibration_folder: Path | None = Field(
        None,
        description="folder of your own pictures (trusted ones: they are opened outside the "
        "sandbox) on which backends are compared and int8 is calibrated; else drawings",
    )
    threads: int = Field(0, ge=0, description="threads of forward passes on a CPU; 0: all cores")
    parallel_batches: int = Field(
        0,
        ge=0,
        description="most forward passes at once on a CPU, which share the threads; 0: as many as "
        "threads, up to 4",
    )
    max_batch: Literal["auto"] | PositiveInt = Field(
        "auto",
        description="most views in one forward pass; auto: as many as make it faster by the view",
    )
    max_queue_delay: float = Field(
        0.0, ge=0, description="seconds that an idle device may wait for a batch to fill"
    )
    client_weights: str = Field(
        "",
        description="shares of clients that wait: NAME:WEIGHT, separated by commas; all others: 1",
    )
    max_queue: int = Field(
        512,
        ge=1,
        description="most views that wait for the device; an image counts as a batch at most",
    )
    text_batch: int = Field(8, ge=1, description="most prompts in one forward pass")
    max_images: int = Field(256, ge=1, description="most images in the service at once")
    max_client_images: int = Field(
        0,
        ge=0,
        description="most images of one client in the service at once; 0: three quarters of "
        "max_images",
    )
    client_quotas: str = Field(
        "",
        description="the same for clients by name: NAME:COUNT, separated by commas",
    )
    max_bytes_in_flight: int = Field(
        512 * 1024 * 1024, ge=1, description="most bytes of images in the service at once"
    )
    max_image_bytes: int = Field(40 * 1024 * 1024, ge=1, description="largest image")
    max_image_pixels: int = Field(
        40_000_000, ge=1, description="most pixels of an image, width times height"
    )
    max_media_frames: int = Field(10_000, ge=1, description="most frames of an animation or video")
    max_media_seconds: float = Field(
        3600.0, gt=0, description="longest animation or video, in seconds"
    )
    max_frames: int = Field(
        16,
        ge=0,
        description="most frames of an animation or video that are encoded, for calls that don't "
        "say; 0: all that differ",
    )
    frame_seconds: float = Field(
        3.0, gt=0, description="how long the frames of one file are decoded to choose from them"
    )
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=2 * 1024 * 1024, description="largest gRPC message"
    )
    max_concepts: int = Field(256, ge=1, description="most concepts in one call")
    max_prompts: int = Field(1024, ge=1, description="most prompts in one call")
    max_prompt_characters: int = Field(500, ge=1, description="longest prompt")
    concept_cache_sets: int = Field(64, ge=1, description="concept sets whose embeddings are kept")
    decode_workers: int = Field(0, ge=0, description="decoder processes; 0: one for each core")
    decode_seconds: float = Field(10.0, gt=0, description="longest time that one file may decode")
    decode_memory: int = Field(
        2 * 1024 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        description="bytes of memory that one decoder process may take for a file",
    )
    sandbox: Literal["auto", "required", "off"] = Field(
        "auto",
        description="whether decoders are refused files, network and programs, by a filter of "
        "system calls; auto: if libseccomp is there",
    )
    stream_images: int = Field(
        32, ge=1, description="most images of one ScoreImages stream that are worked on at once"
    )
    idle_seconds: float = Field(
        10.0, gt=0, description="how long an image may keep us waiting for its next bytes"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate to show: speaks TLS"
    )
    tls_key: Path | None = Field(None, description="PEM file of that certificate's key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of a CA: only clients with a certificate of it may call"
    )
    embeddings: EmbeddingsSetting = Field(
        "auto",
        description="who gets the embeddings of images that it asks for; auto: clients on this "
        "machine, and clients with a certificate of tls_client_ca (behind a proxy on this machine, "
        "everybody seems to be on it)",
    )
    max_connection_age: float = Field(
        20.0,
        ge=0,
        description="seconds after which clients are asked to connect anew, and so find new "
        "replicas; running calls finish; 0: no limit",
    )
    wedged_seconds: float = Field(
        60.0,
        gt=0,
        description="after how long a forward pass that does not come back turns health, and its "
        "service `liveness`, to NOT_SERVING; never under 20 times what the largest batch takes",
    )
    drain_seconds: float = Field(
        25.0, ge=0, description="how long SIGTERM lets running calls finish"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity to log"
    )
    log_format: LogFormat = Field("text", description="text for people, or json: one object a line")

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        match = re.fullmatch(r"unix:.+|(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(\d{1,5})", self.listen)
        if match is None or int(match[1] or 0) > 65535:
            raise ValueError(f"listen: {self.listen!r} is neither ADDRESS:PORT nor unix:PATH")
        match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(\d{1,5})", self.metrics_listen)
        if self.metrics_listen and (match is None or int(match[1]) > 65535):
            raise ValueError(f"metrics_listen: {self.metrics_listen!r} is not ADDRESS:PORT")
        _ = self.weights, self.quotas
        if self.max_bytes_in_flight < self.max_image_bytes:
            raise ValueError("max_bytes_in_flight must have room for max_image_bytes")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @cached_property
    def weights(self) -> dict[str, float]:
        """The weights of `client_weights`, by client name."""
        result = {}
        for name, weight in _by_client("client_weights", self.client_weights, "WEIGHT").items():
            result[name] = float(weight)
            if not 0.001 <= result[name] <= 1000:
                raise ValueError(f"client_weights: {weight} is not between 0.001 and 1000")
        return result

    @cached_property
    def quotas(self) -> dict[str, int]:
        """The counts of `client_quotas`, by client name."""
        result = {}
        for name, count in _by_client("client_quotas", self.client_quotas, "COUNT").items():
            if not count.isdecimal() or not 1 <= int(count) <= self.max_images:
                raise ValueError(f"client_quotas: {count} is not between 1 and max_images")
            result[name] = int(count)
        return result

    @property
    def decoders(self) -> int:
        """The number of decoder processes."""
        return self.decode_workers or len(os.sched_getaffinity(0))


def _by_client(setting: str, text: str, what: str) -> dict[str, str]:
    """Reads NAME:NUMBER,… of a setting. Raises ValueError."""
    result: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = item.rpartition(":")
        if not name or name in result or not re.fullmatch(r"\d*\.?\d+", number):
            raise ValueError(f"{setting}: {item!r} is no NAME:{what} of its own")
        result[name] = number
    return result


def load_settings(arguments: Sequence[str]) -> Settings:
    """Settings from the environment and the command line; what is wrong ends the process.

    Exits with one line on standard error and code 2.
    """
    try:
        _refuse_unknown_variables()
        return Settings(_cli_parse_args=list(arguments))
    except SettingsError as error:
        reason = str(error).removeprefix("error parsing CLI: ")
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        reason = f"{name}: {message}" if name else message
    except ValueError as error:
        reason = str(error)
    print(f"inference: wrong setting: {reason}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise leave a default in force without a word."""
    # Kubernetes sets these by itself for a Service named imagesafety-inference.
    links = re.compile(r"(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_(TCP|UDP).*)")
    for name in os.environ:
        rest = name.removeprefix(PREFIX)
        if rest != name and rest.lower() not in Settings.model_fields and not links.fullmatch(rest):
            raise ValueError(f"there is no setting {name}")
