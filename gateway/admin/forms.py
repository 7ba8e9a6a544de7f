"""Routes for forms: nothing is done that one of our own pages has not sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.sessions import is_form_token

_MOST_FIELDS, _MOST_FIELD_BYTES = 50, 64 * 1024


@dataclass(frozen=True)
class Form:
    """What a form has sent: texts by name, and the content of files."""

    texts: Mapping[str, str]
    files: Mapping[str, bytes]

    def text(self, name: str, most: int = 1000) -> str:
        """A text without the space around it, cut off after `most`; empty if there is none."""
        return self.texts.get(name, "").strip()[:most]


FormHandler = Callable[[Request, Form], Awaitable[Response]]


def form_route(path: str, handler: FormHandler, *, most_file_bytes: int = 0) -> Route:
    """A route that takes a form with our token. 403 without it, 413 for too large a file.

    With `most_file_bytes`, the form may have one file of that size.
    """
    most_bytes = most_file_bytes + _MOST_FIELD_BYTES

    async def endpoint(request: Request) -> Response:
        declared = request.headers.get("content-length", "")
        if not (declared.isascii() and declared.isdigit()):
            raise HTTPException(411, "A form needs a Content-Length.")
        if int(declared) > most_bytes:
            raise HTTPException(413, f"This form may have {most_bytes} bytes at most.")
        sent = request.form(
            max_files=1 if most_file_bytes else 0,
            max_fields=_MOST_FIELDS,
            max_part_size=_MOST_FIELD_BYTES,
        )
        async with sent as fields:
            if not is_form_token(request, fields.get("form_token")):
                raise HTTPException(
                    403, "This form is not of your session any more: go back, reload, try again."
                )
            texts = {name: value for name, value in fields.items() if isinstance(value, str)}
            files = {
                name: await value.read()
                for name, value in fields.items()
                if isinstance(value, UploadFile)
            }
            return await handler(request, Form(texts, files))

    return Route(path, endpoint, methods=["POST"])
