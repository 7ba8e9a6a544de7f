"""Every setting of the gateway: IMAGESAFETY_GATEWAY_… variables, and flags of the same names."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from gateway.callers import Network
from gateway.clients import SHORTEST_SECRET, parse_modes, parse_secrets
from gateway.ledger.database import sqlite_url
from gateway.webhook_signature import signing_key
from imagesafety.client import TlsFiles
from imagesafety.policy import Mode
from telemetry.logs import LogFormat

PREFIX = "IMAGESAFETY_GATEWAY_"
LOOPBACK_AND_PRIVATE = (
    "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1/128,fc00::/7,fe80::/10"
)
LONGEST_SECRET = 500

Answer = Literal["accept", "reject"]


class Settings(BaseSettings):
    """The HTTP service that pict-rs asks about each upload.

    Each flag is also an environment variable: --time-budget is IMAGESAFETY_GATEWAY_TIME_BUDGET.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m gateway",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    listen: str = Field("127.0.0.1:14051", description="address and port for pict-rs")
    admin_listen: str = Field(
        "127.0.0.1:14052", description="address and port for the admin pages and /metrics"
    )
    admin_token: str = Field(
        "",
        description="what opens the admin pages; without it, they open on this machine only",
        repr=False,
    )
    inference: str = Field(
        "127.0.0.1:50051", description="gRPC target of the inference service, such as unix:/path"
    )
    inference_ca: Path | None = Field(
        None, description="PEM file of the CA to trust: speaks TLS to the inference service"
    )
    inference_certificate: Path | None = Field(
        None, description="PEM file of the certificate to show to the inference service"
    )
    inference_key: Path | None = Field(None, description="PEM file of that certificate's key")
    policy: str = Field("demo", description="policy file, or the name of one that ships with us")
    time_budget: float = Field(
        8.0, gt=0.1, le=300, description="seconds from an upload's first byte to its answer"
    )
    retry_bytes: int = Field(
        48 * 1024 * 1024,
        ge=0,
        description="bytes that uploads under way may keep, each a quarter at most, to be sent to "
        "another inference replica if one fails",
    )
    hedge_after: float = Field(
        0.0,
        ge=0,
        description="seconds since an upload was sent without scores, after which another call is "
        "made beside the first, and after as many a third; 0: never",
    )
    max_upload_bytes: int = Field(40 * 1024 * 1024, ge=1, description="larger uploads get 413")
    allowed_networks: str = Field(
        LOOPBACK_AND_PRIVATE, description="who may call as IPADDR, separated by commas"
    )
    client_secrets: str = Field(
        "",
        description="who may call from anywhere: NAME:SECRET, separated by commas; the secret "
        "takes the place of IPADDR in the URL",
        repr=False,
    )
    trusted_proxies: str = Field(
        "",
        description="networks of proxies whose X-Forwarded-For is believed, separated by commas",
    )
    client_modes: str = Field(
        "",
        description="what rules may do to whom: NAME:MODE, separated by commas; shadow accepts and "
        "records what would have been, off doesn't scan. IPADDR is a name too",
    )
    on_undecodable: Answer = Field("reject", description="for files that no decoder can read")
    on_overload: Answer = Field("accept", description="when the inference service is full")
    on_unavailable: Answer = Field("accept", description="when it can't be reached")
    on_deadline: Answer = Field("accept", description="when the time budget ran out")
    on_error: Answer = Field("accept", description="when scoring failed in another way")
    data_folder: Path = Field(
        Path("~/.local/share/imagesafety"),
        description="where the ledger is, and the spool for when the database is down",
    )
    database: str = Field(
        "",
        description="SQLAlchemy URL of the ledger, such as postgresql+psycopg://…; empty for "
        "SQLite in the data folder, off for no ledger",
        repr=False,
    )
    retention_days: int = Field(
        90, ge=1, le=36500, description="for how long decisions are kept; overrides stay"
    )
    repeats: bool = Field(
        True, description="whether bytes that were scored before are answered from the ledger"
    )
    repeat_cache: int = Field(
        4096, ge=0, description="how many scored files are remembered in memory for that"
    )
    perceptual_hashes: bool = Field(
        True, description="whether overrides can match what looks alike; costs a little per image"
    )
    webhook_url: str = Field("", description="where rejects and flags are posted to")
    webhook_secret: str = Field(
        "", description="signs what is posted there: whsec_ and base64", repr=False
    )
    pict_rs: str = Field(
        "", description="URL of pict-rs: files that were accepted unscanned are fetched from there"
    )
    pict_rs_api_key: str = Field("", description="its server.api_key", repr=False)
    on_late_reject: Literal["report", "purge"] = Field(
        "report", description="what to do in pict-rs with a file that is rejected after a rescan"
    )
    warm_up_seconds: float = Field(
        60.0,
        ge=0,
        description="how long /readyz waits at the start for inference to embed the policy's "
        "concepts",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        description="seconds for which SIGTERM goes on taking uploads, while /readyz tells load "
        "balancers to send no more",
    )
    drain_seconds: int = Field(
        15, ge=0, description="how long SIGTERM lets uploads finish; no less than time_budget"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity to log"
    )
    log_format: LogFormat = Field("text", description="text for people, or json: one object a line")

    @field_validator("admin_token", "webhook_secret", "pict_rs_api_key")
    @classmethod
    def _without_line_break(cls, value: str) -> str:
        return value.strip()  # what secrets out of files end on

    @field_validator("listen", "admin_listen")
    @classmethod
    def _check_address(cls, value: str) -> str:
        host_and_port(value)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        _ = self.networks, self.secrets, self.proxies, self.modes
        for one, other in (
            ("inference_certificate", "inference_key"),
            ("pict_rs", "pict_rs_api_key"),
            ("webhook_url", "webhook_secret"),
        ):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one} and {other} go together")
        for name, url in (("webhook_url", self.webhook_url), ("pict_rs", self.pict_rs)):
            if url and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
                raise ValueError(f"{name} is no http:// or https:// URL")
            if url and self.database == "off":
                raise ValueError(f"{name} needs a ledger, which is off")
        if self.webhook_secret:
            signing_key(self.webhook_secret)
        if self.inference_ca is not None and re.match(r"ipv[46]:.*,", self.inference):
            # gRPC would look for the whole list in the certificates.
            raise ValueError("inference must be one name or address for TLS, such as dns:///name:1")
        if self.drain_seconds < self.time_budget and "drain_seconds" in self.model_fields_set:
            raise ValueError("drain_seconds must be time_budget or more: uploads would be cut off")
        if self.inference_certificate is not None and self.inference_ca is None:
            raise ValueError("inference_certificate needs inference_ca")
        if self.admin_token and (
            not SHORTEST_SECRET <= len(self.admin_token) <= LONGEST_SECRET
            or not (self.admin_token.isascii() and self.admin_token.isprintable())
        ):
            lengths = f"{SHORTEST_SECRET} to {LONGEST_SECRET}"
            raise ValueError(f"admin_token needs {lengths} printable ASCII characters")
        return self

    @property
    def answer_margin(self) -> float:
        """Seconds of the time budget that are kept for writing the answer."""
        return min(0.25, self.time_budget / 10)

    @property
    def longest_drain(self) -> int:
        """Seconds after which SIGTERM ends uploads: by then, all are answered."""
        return max(self.drain_seconds, math.ceil(self.time_budget) + 2)

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.data_folder.expanduser()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the ledger."""
        return self.database or sqlite_url(self.folder.resolve() / "ledger.db")

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The networks of `allowed_networks`."""
        return _networks(self.allowed_networks)

    @cached_property
    def proxies(self) -> tuple[Network, ...]:
        """The networks of `trusted_proxies`."""
        return _networks(self.trusted_proxies)

    @cached_property
    def modes(self) -> dict[str, Mode]:
        """The modes of `client_modes`, by client name."""
        return parse_modes(_items(self.client_modes), self.secrets)

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The secrets of `client_secrets`, by client name."""
        return parse_secrets(_items(self.client_secrets))

    @cached_property
    def tls(self) -> TlsFiles | None:
        """The files for TLS to the inference service, if it is on."""
        if self.inference_ca is None:
            return None
        return TlsFiles(self.inference_ca, self.inference_certificate, self.inference_key)


def _items(text: str) -> list[str]:
    """What commas separate."""
    return [item for part in text.split(",") if (item := part.strip())]


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(item) for item in _items(text))


def host_and_port(address: str) -> tuple[str, int]:
    """Splits "127.0.0.1:14051" or "[::1]:14051". Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{address!r} is not an address and port, such as 127.0.0.1:14051")
    return match[1] or match[2], int(match[3])


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
    print(f"gateway: wrong setting: {reason}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise leave a default in force without a word."""
    # Kubernetes sets these by itself for a Service named imagesafety-gateway.
    links = re.compile(r"(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_(TCP|UDP).*)")
    for name in os.environ:
        rest = name.removeprefix(PREFIX)
        if rest != name and rest.lower() not in Settings.model_fields and not links.fullmatch(rest):
            raise ValueError(f"there is no setting {name}")
