"""Fills in templates: every value is text, whatever a stranger has put into it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from gateway.admin.sessions import form_token

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def moment(at: int) -> Markup:
    """A time element for microseconds since 1970: UTC, to the second."""
    try:
        at_utc = datetime.fromtimestamp(at / 1e6, UTC)
    except (OverflowError, OSError, ValueError):
        return Markup("<span>unknown time</span>")
    return Markup('<time datetime="{}">{}</time>').format(
        at_utc.strftime("%Y-%m-%dT%H:%M:%SZ"), at_utc.strftime("%Y-%m-%d %H:%M:%S")
    )


def ago(at: int) -> Markup:
    """A time element for microseconds since 1970, in words such as "3 minutes ago"."""
    seconds = max(0, time.time_ns() // 1000 - at) // 1_000_000
    unit, length = next((u for u in _UNITS if seconds >= u[1]), _UNITS[-1])
    count = seconds // length
    words = f"{count} {unit}{'' if count == 1 else 's'} ago"
    return Markup('<span title="{}">{}</span>').format(moment(at).striptags(), words)


def size(count: int) -> str:
    """A number of bytes for people, such as "1.4 MiB"."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def milliseconds(value: float | None) -> str:
    """A duration for people, such as "18.2 ms" or "2.41 s"; a dash where there is none."""
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def number(count: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def cosine(value: float) -> str:
    """A similarity or threshold: four decimals are more than two backends agree on."""
    return f"{value:.4f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference with its sign; what rounds to nothing has none."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def sentence(text: str) -> str:
    """An error's message as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def percent(share: float) -> str:
    """A share of one as a percentage."""
    return f"{100 * share:.1f} %"


_environment.filters.update(
    moment=moment,
    ago=ago,
    size=size,
    ms=milliseconds,
    number=number,
    cosine=cosine,
    signed=signed,
    percent=percent,
)


def render(name: str, context: Mapping[str, Any]) -> str:
    """The text of a template."""
    return _environment.get_template(name).render(context)


def page(
    request: Request,
    name: str,
    context: Mapping[str, Any],
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A whole page. Notes that an earlier request has left in the session are shown, once."""
    state = request.state
    said = request.session.pop("said", None) if "session" in request.scope else None
    text = render(
        name,
        {
            "who": getattr(state, "who", None),
            "caller": getattr(state, "caller", None),
            "trouble": request.app.state.trouble(),
            "path": request.url.path,
            "form_token": form_token(request) if "session" in request.scope else "",
            "said": said,
            **context,
        },
    )
    return HTMLResponse(text, status_code, headers)


def say(request: Request, text: str) -> None:
    """Leaves a note for the next page that this caller sees."""
    request.session["said"] = text[:500]
