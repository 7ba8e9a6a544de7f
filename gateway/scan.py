"""`POST /api/v1/scan/{client_id}`: an upload comes in, a decision goes out."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway import rescan_queue
from gateway.callers import caller_address
from gateway.clients import authenticate
from gateway.decision import Decider, Decision
from gateway.decision_fields import fields_of
from gateway.decision_record import Facts, record_of, timings_of, worth_a_rescan
from gateway.evidence import Cause, TooLargeError, Unscored
from gateway.examination import Examined, Examiner
from gateway.examination_request import ExaminationRequest
from gateway.first_call import FirstCall
from gateway.http_protocol import FIRST_BYTE
from gateway.kept_bytes import KeptBytes
from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError
from gateway.metrics import Metrics
from gateway.overrides.matching import OverrideSource
from gateway.policy_in_force import CurrentPolicy
from gateway.settings import Settings
from gateway.upload import ClientGoneError, Upload, UploadTooLargeError
from gateway.upload_form import DeclaredContent, FileForm, MalformedFormError, declared_content
from gateway.upload_trace import tell_decision, tell_status, upload_span
from imagesafety.policy import Mode
from telemetry.tracing import span

MEDIA_TYPES = frozenset(
    {"image/apng", "image/avif", "image/gif", "image/jpeg", "image/jxl", "image/png", "image/webp"}
    | {"video/mp4", "video/webm"}
)
LINGER_SECONDS = 2.0  # for how long a body is read that nobody needs any more
# A body so small that comes so fast is there whole before inference is called: it may be known.
SMALL_BYTES, SMALL_SECONDS = 256 * 1024, 0.002
MOST_USER_AGENT, MOST_MEDIA_TYPE = 200, 100  # characters
AfterBody = Callable[[], Awaitable[None]]
CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to read it

log = logging.getLogger("gateway")


class RefusedError(Exception):
    """A request that is no upload to decide on; `error` names the kind for programs."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


class AnswerResponse(JSONResponse):
    """An answer that may overtake the body of its request, and then reads on for a while."""

    def __init__(
        self, content: object, status_code: int, upload: Upload, if_whole: AfterBody | None = None
    ) -> None:
        """`if_whole` is called if the rest of the body has come after the answer."""
        super().__init__(content, status_code)
        self._upload = upload
        self._if_whole = if_whole
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
            if self._upload.sha256 is not None and self._if_whole is not None:
                await self._if_whole()


class Scanner:
    """Answers uploads inside the time budget, each with its row in the ledger first."""

    def __init__(
        self,
        settings: Settings,
        examiner: Examiner,
        decider: Decider,
        policy: CurrentPolicy,
        overrides: OverrideSource,
        ledger: AnyLedger,
        metrics: Metrics,
        first_call: FirstCall,
    ) -> None:
        self._settings = settings
        self._kept = KeptBytes(settings.retry_bytes)
        self._examiner = examiner
        self._decider = decider
        self._policy = policy
        self._overrides = overrides
        self._ledger = ledger
        self._metrics = metrics
        self._first_call = first_call

    async def scan(self, request: Request) -> Response:
        """The endpoint."""
        started: float = request.scope["state"].get(FIRST_BYTE, time.monotonic())
        with self._metrics.uploads_in_flight.track_inprogress(), upload_span(request, started):
            return await self._answer(request, started)

    async def _answer(self, request: Request, started: float) -> Response:
        body = Upload(request.receive, self._settings.max_upload_bytes, self._kept)
        try:
            upload = self._admitted(request, body)
            examined = await self._examine(upload, started)
        except RefusedError as refused:
            self._metrics.count_refusal(refused.status)
            tell_status(refused.status)
            log.info("refused", extra={"status": refused.status, "error": refused.error})
            content = {"error": refused.error, "message": refused.message}
            return AnswerResponse(content, refused.status, body)
        except ClientGoneError:
            log.info("the client hung up", extra={"bytes": body.received})
            tell_status(CLIENT_CLOSED_REQUEST)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        decision = self._decider.decide(
            upload.policy.policy,
            examined.evidence,
            sha256=body.sha256,
            overrides=upload.overrides,
            mode=upload.mode,
        )
        await self._put_on_record(upload, examined, decision, started)
        late = bool(self._settings.pict_rs) and worth_a_rescan(decision) and body.sha256 is None
        if_whole = partial(self._have_rescanned, upload) if late else None
        return AnswerResponse(decision.body(upload.id), decision.status, body, if_whole)

    def _admitted(self, request: Request, body: Upload) -> ExaminationRequest:
        """The upload as it is to be examined. Raises RefusedError."""
        user_agent = _printable(request.headers.get("user-agent", ""), MOST_USER_AGENT)
        try:
            upload = self._admit(request, body, user_agent)
        except RefusedError as refused:
            self._first_call.note_refusal(refused.status, refused.message, user_agent)
            raise
        self._first_call.note_upload()
        return upload

    def _admit(self, request: Request, body: Upload, user_agent: str) -> ExaminationRequest:
        name = authenticate(
            request.path_params["client_id"],
            caller_address(
                request.client.host if request.client else None,
                request.headers.getlist("x-forwarded-for"),
                self._settings.proxies,
            ),
            self._settings.networks,
            self._settings.secrets,
        )
        if name is None:
            raise RefusedError(401, "not_allowed", "this client may not ask here")
        content = _declared(request)
        form = FileForm(content.boundary) if content.boundary is not None else None
        body.declare(content.media_type, form)
        if form is None or content.media_type:
            _check_media_type(content.media_type)
        return ExaminationRequest(
            id=secrets.token_hex(16),
            upload=body,
            client=name,
            mode=self._settings.modes.get(name, Mode.ENFORCE),
            user_agent=user_agent,
            policy=self._policy.value,
            overrides=self._overrides.current,
        )

    async def _examine(self, upload: ExaminationRequest, started: float) -> Examined:
        """The evidence, inside the time budget. Raises RefusedError and ClientGoneError."""
        budget = self._settings.time_budget
        margin = self._settings.answer_margin
        try:
            async with asyncio.timeout_at(_loop_time(started + budget - margin / 2)):
                if not await upload.upload.gather(SMALL_BYTES, SMALL_SECONDS):
                    where = "the form's part" if upload.upload.is_form else "the request's body"
                    raise RefusedError(400, "empty_body", f"{where} is empty; expected a file")
                _check_form_type(upload.media_type)
                return await self._examiner.examine(upload, started + budget - margin)
        except TimeoutError:
            _check_form_type(upload.media_type)  # the part's headers may have come, and no more
            return Examined(Unscored(Cause.DEADLINE, "the time budget ran out"))
        except MalformedFormError as error:
            raise RefusedError(400, "malformed_form", str(error)) from error
        except (UploadTooLargeError, TooLargeError) as error:
            limit = f"the body is over {self._settings.max_upload_bytes} bytes"
            raise RefusedError(413, "too_large", str(error) or limit) from error
        finally:
            upload.upload.forget()

    async def _have_rescanned(self, upload: ExaminationRequest) -> None:
        """Has a file fetched again whose hash was not known yet when its row was written."""
        body, sha256 = upload.upload, upload.upload.sha256
        if sha256 is None:
            return
        put_in = partial(rescan_queue.put_in, id=upload.id, sha256=sha256, size=body.received)
        try:
            done = await self._ledger.transaction(put_in)
        except LedgerUnavailableError as error:
            log.warning("decision %s will not be rescanned: %s", upload.id, error)
            return
        if not done:
            log.warning("decision %s will not be rescanned: it waits in the spool", upload.id)

    async def _put_on_record(
        self, upload: ExaminationRequest, examined: Examined, decision: Decision, started: float
    ) -> None:
        """Writes the row, and waits until it is durable as far as the time budget allows."""
        body, evidence, now = upload.upload, examined.evidence, time.monotonic()
        facts = Facts(
            id=upload.id,
            at=time.time_ns() // 1000,
            client=upload.client,
            client_mode=upload.mode,
            sha256=body.sha256,
            size=body.received,
            media_type=upload.media_type,
            reference=body.name,
            user_agent=upload.user_agent or None,
        )
        timings = timings_of(
            evidence,
            total=now - started,
            upload=body.ended_at - started if body.ended_at is not None else None,
            score=examined.score_seconds,
        )
        record = record_of(
            decision,
            evidence,
            facts,
            upload.policy.policy,
            timings,
            rescans=bool(self._settings.pict_rs),
        )
        fields = fields_of(upload, decision, now - started)
        level = logging.WARNING if decision.unscanned else logging.INFO
        log.log(level, "%s", decision.message, extra=fields)
        tell_decision(fields, decision.message, decision.status)
        margin = self._settings.answer_margin
        until = started + self._settings.time_budget - margin / 4
        with span("ledger write"):
            await self._ledger.record(record, until=until)  # where it went, the ledger tells
        stored = time.monotonic()
        self._metrics.observe_stages(timings)
        self._metrics.ledger_seconds.observe(stored - now)
        self._metrics.count_decision(decision, stored - started, body.received)


def _declared(request: Request) -> DeclaredContent:
    """The body by the request's headers. Raises RefusedError."""
    try:
        return declared_content(request.headers.getlist("content-type"))
    except MalformedFormError as error:
        raise RefusedError(400, "malformed_form", str(error)) from error


def _check_media_type(media_type: str) -> None:
    """Raise RefusedError for what is not scanned."""
    if media_type not in MEDIA_TYPES:
        scanned = ", ".join(sorted(MEDIA_TYPES))
        declared = _printable(media_type, MOST_MEDIA_TYPE) or "no Content-Type"
        message = f"{declared} is not scanned; {scanned} are"
        raise RefusedError(415, "unsupported_media_type", message)


def _check_form_type(media_type: str) -> None:
    """Raise RefusedError too; a form may declare none, and inference goes by the bytes."""
    if media_type:
        _check_media_type(media_type)


def _printable(text: str, most: int) -> str:
    """A header's value, not longer than a log should have to hold, without control characters."""
    bounded = text[:most]
    return "".join(character if character.isprintable() else "?" for character in bounded)


def _loop_time(monotonic: float) -> float:
    """The event loop's time at a time of time.monotonic()."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
