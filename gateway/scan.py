"""`POST /api/v1/scan/{client_id}`: an upload comes in, a decision goes out."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.clients import authenticate
from gateway.decision import Cause, Decider, Decision, TooLargeError
from gateway.http_protocol import FIRST_BYTE
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.upload import ClientGoneError, Upload, UploadTooLargeError
from imagesafety.client import ConceptSet, ScoringClient, ScoringError

MEDIA_TYPES = frozenset(
    {"image/apng", "image/avif", "image/gif", "image/jpeg", "image/jxl", "image/png", "image/webp"}
    | {"video/mp4", "video/webm"}
)
LINGER_SECONDS = 2.0  # for how long a body is read that nobody needs any more
CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to read it

log = logging.getLogger("gateway")


class RefusedError(Exception):
    """A request that is no upload to decide on; `error` names the kind for programs."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


class AnswerResponse(JSONResponse):
    """An answer that may overtake the body of its request, and then reads on for a while."""

    def __init__(self, content: object, status_code: int, upload: Upload) -> None:
        super().__init__(content, status_code)
        self._upload = upload
        if not upload.ended:
            self.headers["connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer at once, and closes only when the client has stopped sending."""
        overtakes = not self._upload.ended
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": self.body, "more_body": overtakes})
        if overtakes:
            await self._upload.discard_rest(LINGER_SECONDS)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class Scanner:
    """Answers uploads: streams them to inference, applies the policy, keeps the time budget."""

    def __init__(
        self, settings: Settings, client: ScoringClient, decider: Decider, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._client = client
        self._policy = decider.policy
        self._concepts = ConceptSet(self._policy.concepts)
        self._decider = decider
        self._metrics = metrics

    async def scan(self, request: Request) -> Response:
        """The endpoint."""
        started: float = request.scope["state"].get(FIRST_BYTE, time.monotonic())
        upload = Upload(request.receive, self._settings.max_upload_bytes)
        try:
            client_name, media_type = self._admit(request)
            decision = await self._decide(upload, client_name, media_type, started)
        except RefusedError as refused:
            self._metrics.count_refusal(refused.status)
            log.info("refused status=%d error=%s", refused.status, refused.error)
            content = {"error": refused.error, "message": refused.message}
            return AnswerResponse(content, refused.status, upload)
        except ClientGoneError:
            log.info("client hung up after %d bytes", upload.received)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        seconds = time.monotonic() - started
        self._metrics.count_decision(decision, seconds)
        log.log(
            logging.WARNING if decision.unscanned else logging.INFO,
            "decision=%s cause=%s rule=%s unscanned=%s id=%s client=%s type=%s bytes=%d ms=%d (%s)",
            *(decision.body["decision"], decision.cause, decision.rule, decision.unscanned),
            *(decision.id, client_name, media_type, upload.received, seconds * 1000),
            decision.message,
        )
        return AnswerResponse(decision.body, decision.status, upload)

    def _admit(self, request: Request) -> tuple[str, str]:
        """The client's name and the declared media type. Raises RefusedError."""
        name = authenticate(
            request.path_params["client_id"],
            request.client.host if request.client else None,
            self._settings.networks,
            self._settings.secrets,
        )
        if name is None:
            raise RefusedError(401, "not_allowed", "this client may not ask here")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in MEDIA_TYPES:
            scanned = ", ".join(sorted(MEDIA_TYPES))
            message = f"{media_type or 'no Content-Type'} is not scanned; {scanned} are"
            raise RefusedError(415, "unsupported_media_type", message)
        return name, media_type

    async def _decide(self, upload: Upload, name: str, media_type: str, started: float) -> Decision:
        """The decision, inside the time budget. Raises RefusedError and ClientGoneError."""
        budget = self._settings.time_budget
        margin = self._settings.answer_margin
        try:
            async with asyncio.timeout_at(_loop_time(started + budget - margin / 2)):
                if not await upload.first_chunk():
                    raise RefusedError(400, "empty_body", "the request has no body")
                return await self._score(upload, name, media_type, started + budget - margin)
        except TimeoutError:
            return self._decider.without_scores(Cause.DEADLINE, "the time budget ran out")
        except (UploadTooLargeError, TooLargeError) as error:
            limit = f"the body is over {self._settings.max_upload_bytes} bytes"
            raise RefusedError(413, "too_large", str(error) or limit) from error

    async def _score(self, upload: Upload, name: str, media_type: str, until: float) -> Decision:
        """Scores the upload until the monotonic time `until`; a client that hangs up ends it."""
        scoring = asyncio.create_task(
            self._client.score_image(
                upload,
                concepts=self._concepts,
                timeout=max(0.001, until - time.monotonic()),
                media_type=media_type,
                client=name,
                tiles=self._policy.tiles,
                closer_when=self._policy.closer_when,
            )
        )
        watching = asyncio.create_task(upload.wait_for_disconnect())
        try:
            await asyncio.wait({scoring, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise ClientGoneError
            return self._decider.on_scores(scoring.result())
        except ScoringError as error:
            return self._decider.on_failure(error)
        except (ClientGoneError, UploadTooLargeError):
            raise
        except Exception:
            # A mistake of ours must not decide more than the configuration allows it to.
            log.exception("scoring failed")
            return self._decider.without_scores(Cause.ERROR, "an internal error")
        finally:
            for task in (scoring, watching):
                task.cancel()
            await asyncio.gather(scoring, watching, return_exceptions=True)


def _loop_time(monotonic: float) -> float:
    """The event loop's time at a time of time.monotonic()."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
