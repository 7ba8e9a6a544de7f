"""Both services: one table of settings each, and one clear line for what is wrong."""

import re
import subprocess
import sys

import pytest
from sqlalchemy import make_url

import gateway.settings
import inference.settings

WRONG = [
    ("gateway", ["--time-budget", "soon"], "time_budget"),
    ("gateway", ["--time-budget", "-1"], "time_budget"),
    ("gateway", ["--listen", "nowhere"], "nowhere"),
    ("gateway", ["--allowed-networks", "10.0.0.0/99"], "10.0.0.0/99"),
    ("gateway", ["--client-secrets", "lemmy:short"], "at least 16"),
    ("gateway", ["--inference-key", "k.pem"], "go together"),
    ("gateway", ["--inference", "ipv4:1.2.3.4:1,5.6.7.8:1", "--inference-ca", "ca.pem"], "for TLS"),
    ("gateway", ["--time-budget", "30", "--drain-seconds", "10"], "drain_seconds must be"),
    ("gateway", ["--no-such-flag", "1"], "--no-such-flag"),
    ("gateway", ["--client-modes", "lemmy:shadow"], "'lemmy' is no name of client_secrets"),
    ("gateway", ["--client-modes", "IPADDR:maybe"], "'maybe' is none of enforce, shadow, off"),
    ("gateway", ["--trusted-proxies", "proxy"], "'proxy' does not appear to be an IPv4 or IPv6"),
    ("gateway", ["--admin-token", "short"], "16 to 500 printable"),
    ("gateway", ["--admin-token", "x" * 501], "16 to 500 printable"),
    ("gateway", ["--admin-token", "a token in\ntwo lines"], "16 to 500 printable"),
    ("gateway", ["--pict-rs", "http://127.0.0.1"], "go together"),
    ("gateway", ["--webhook-url", "http://127.0.0.1"], "go together"),
    ("gateway", ["--webhook-url", "127.0.0.1", "--webhook-secret", "x"], "no http:// or https://"),
    ("gateway", ["--webhook-url", "http://h", "--webhook-secret", "x"], "whsec_"),
    (
        "gateway",
        ["--pict-rs", "http://h", "--pict-rs-api-key", "k", "--database", "off"],
        "needs a ledger",
    ),
    ("gateway", ["--retention-days", "0"], "retention_days"),
    ("gateway", ["--database", "nonsense"], "database"),
    ("gateway", ["--policy", "/nowhere.toml"], "/nowhere.toml: no such policy file"),
    ("gateway", ["--inference-ca", "/nowhere.pem"], "/nowhere.pem"),
    ("inference", ["--max-batch", "0"], "max_batch"),
    ("inference", ["--max-batch", "many"], "max_batch"),
    ("inference", ["--max-queue-delay", "-1"], "max_queue_delay"),
    ("inference", ["--idle-seconds", "0"], "idle_seconds"),
    ("inference", ["--idle-seconds", "nan"], "idle_seconds"),
    ("inference", ["--client-weights", "a"], "'a' is no NAME:WEIGHT"),
    ("inference", ["--client-weights", "a:x"], "'a:x' is no NAME:WEIGHT"),
    ("inference", ["--client-weights", "a:1,a:2"], "'a:2' is no NAME:WEIGHT of its own"),
    ("inference", ["--client-weights", "a:0"], "0 is not between 0.001 and 1000"),
    ("inference", ["--client-weights", "a:-1"], "'a:-1' is no NAME:WEIGHT"),
    ("inference", ["--client-weights", ":1"], "':1' is no NAME:WEIGHT"),
    ("inference", ["--client-quotas", "a"], "'a' is no NAME:COUNT"),
    ("inference", ["--client-quotas", "a:1,a:2"], "'a:2' is no NAME:COUNT of its own"),
    ("inference", ["--client-quotas", "a:1.5"], "1.5 is not between 1 and max_images"),
    ("inference", ["--client-quotas", "a:0"], "0 is not between 1 and max_images"),
    ("inference", ["--client-quotas", "a:300"], "300 is not between 1 and max_images"),
    ("inference", ["--max-connection-age", "-1"], "max_connection_age"),
    ("inference", ["--wedged-seconds", "0"], "wedged_seconds"),
    ("inference", ["--listen", "nowhere"], "listen"),
    ("inference", ["--listen", "127.0.0.1:99999"], "listen"),
    ("inference", ["--max-image-bytes", "9999999999"], "max_bytes_in_flight"),
    ("inference", ["--tls-key", "k.pem"], "go together"),
    ("inference", ["--model", "nothing"], "neither ARCH/TAG"),
    ("inference", ["--model", "ViT-B-32@/nowhere.pt"], "there is no file /nowhere.pt"),
    ("inference", ["--tls-certificate", "/nowhere", "--tls-key", "/nowhere"], "/nowhere"),
]


@pytest.mark.parametrize(("service", "flags", "named"), WRONG)
def test_a_wrong_setting_stops_the_start_with_one_line(
    service: str, flags: list[str], named: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", service, *flags], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(rf"{service}: .*\n", ended.stderr)
    assert named in ended.stderr


def test_variables_and_flags_have_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGESAFETY_GATEWAY_TIME_BUDGET", "5")
    monkeypatch.setenv("IMAGESAFETY_INFERENCE_MAX_BATCH", "4")
    assert gateway.settings.load_settings([]).time_budget == 5
    assert gateway.settings.load_settings(["--time-budget", "6"]).time_budget == 6
    assert inference.settings.load_settings([]).max_batch == 4


def test_the_ledger_is_in_the_data_folder_whatever_that_is_called() -> None:
    settings = gateway.settings.load_settings(["--data-folder", "/data/what? 100%#"])
    assert make_url(settings.database_url).database == "/data/what? 100%#/ledger.db"


def test_a_secret_out_of_a_file_ends_before_its_line_break() -> None:
    settings = gateway.settings.load_settings(["--admin-token", "a token of some length\n"])
    assert settings.admin_token == "a token of some length"


def test_the_weights_of_clients() -> None:
    flags = ["--client-weights", "pict-rs:2, a:b:.5 ,10.0.0.1:1000,"]
    weights = inference.settings.load_settings(flags).weights
    assert weights == {"pict-rs": 2, "a:b": 0.5, "10.0.0.1": 1000}
    assert inference.settings.load_settings([]).weights == {}


@pytest.mark.parametrize("service", ["GATEWAY", "INFERENCE"])
def test_a_misspelt_variable_is_noticed(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = {"GATEWAY": gateway.settings, "INFERENCE": inference.settings}[service].load_settings
    # What Kubernetes adds for a Service of that name is no mistake.
    monkeypatch.setenv(f"IMAGESAFETY_{service}_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv(f"IMAGESAFETY_{service}_PORT_50051_TCP_ADDR", "10.0.0.1")
    load([])
    monkeypatch.setenv(f"IMAGESAFETY_{service}_LISTN", "x")
    with pytest.raises(SystemExit) as stopped:
        load([])
    assert stopped.value.code == 2
    assert "LISTN" in capsys.readouterr().err


@pytest.mark.parametrize("service", ["gateway", "inference"])
def test_help_shows_every_setting_with_its_default(service: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", service, "--help"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0
    fields = {"gateway": gateway.settings, "inference": inference.settings}[service].Settings
    for name in fields.model_fields:
        assert f"--{name.replace('_', '-')} " in ended.stdout
    assert " ".join(ended.stdout.split()).count("(default: ") == len(fields.model_fields)
