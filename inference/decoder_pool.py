"""Runs decoders in processes of their own, behind the fence of `inference.decoder.sandbox`.

What a file that crashes, hangs or fills its decoder costs is one error, and a new process.

The pool is written here, because the kept libraries cost too much of the decoders' speed
(benchmarks/RESULTS.md) and unpickle what the processes send, which is no fence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace

from inference.decode_times import DecodeTimes
from inference.decoder.media import DecodedMedia, Request
from inference.decoder.protocol import WorkerSettings
from inference.decoder_process import (
    DecodedFile,
    DecoderProcess,
    DecoderStartError,
    KilledError,
    NeverReceivedError,
)
from inference.errors import Reason, ScoringError
from inference.metrics import Metrics
from inference.shared_file import SharedFile
from inference.work_queue import UPLOADS_COME, Priority, QueueFullError, WorkQueue
from telemetry.tracing import Span, add_past_span, recorded_span

_RESTART_SECONDS = 1.0  # between attempts, when processes can't be started at all
_ENDS_PROCESS = frozenset(
    {Reason.DECODER_CRASHED, Reason.DECODER_TIMEOUT, Reason.DECODER_OUT_OF_MEMORY}
    | {Reason.DEADLINE_EXCEEDED}
)
# Of the time that a call has left: what its file may use of a processor, and how long its frames
# are chosen. A file that needs more is at fault; one that had to wait for others is not.
_PROCESSOR_SHARE = 0.6
_PATIENCE_SHARE = 0.85  # of any time: on a busy machine there is less of a processor to be had
_FRAMES_SHARE = 0.35
_LEAST_SECONDS = 1.0

log = logging.getLogger("inference")


@dataclass(frozen=True)
class _Job:
    file: SharedFile
    request: Request
    priority: Priority
    deadline: float
    client: str
    result: asyncio.Future[DecodedFile]
    arrived: float
    span: Span | None  # that the wait is told in, if it is traced
    again: bool = False  # it is not the first process that has it


@dataclass(frozen=True)
class FilesAhead:
    """Files that are or will be with a decoder before another; of those, `lower` in priority."""

    files: int
    lower: int = 0


class DecoderPool:
    """A number of decoder processes, and the queue in front of them."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        workers: int,
        max_queue: int,
        max_views: int,
        weights: Mapping[str, float] | None = None,
        filter_required: bool = False,
        on_busy: Callable[[float], None] = lambda _: None,
        metrics: Metrics | None = None,
    ) -> None:
        """`weights` are those of clients by name; `on_busy` is told which part has work.

        No further file is decoded while callers hold `max_views` views; of bulk work, half. While
        uploads come, bulk work leaves one of several decoders free: a file that is being decoded
        can't be put off.
        """
        self._settings = settings
        self._workers = workers
        self._max_views = max_views
        self._filter_required = filter_required
        self._metrics = metrics or Metrics()
        self._queue: WorkQueue[_Job] = WorkQueue(max_queue, weights)
        self._idle: list[DecoderProcess] = []
        self._processes: set[DecoderProcess] = set()
        self._held_views = 0
        self._last_upload = -math.inf  # when it came
        self._on_busy = on_busy
        self._working = dict.fromkeys(Priority, 0)  # files that are being decoded
        self.times = DecodeTimes(workers)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts the processes. Raises DecoderStartError."""
        starting = [self._start_one() for _ in range(self._workers)]
        try:
            [unfiltered, *_] = await asyncio.gather(*starting)
        except OSError as error:
            raise DecoderStartError(str(error)) from error
        if unfiltered:
            log.warning("decoders run without a filter of system calls: %s", unfiltered)

    async def close(self) -> None:
        """Ends the processes, at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(process.kill() for process in self._processes))
        self._processes.clear()
        self._idle.clear()

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the decoders."""
        return frozenset(process.pid for process in self._processes)

    @property
    def count(self) -> int:
        """How many decoders there are; may be asked from any thread."""
        return len(self._processes)

    @property
    def files(self) -> int:
        """How many files wait, or are being decoded."""
        return len(self._queue) + sum(self._working.values())

    def ahead(self, priority: Priority, deadline: float, client: str) -> FilesAhead:
        """What will be decoded before a file that came now."""
        queued = self._queue.ahead(priority, deadline, client)
        lower = sum(count for other, count in self._working.items() if other > priority)
        return FilesAhead(queued + sum(self._working.values()), lower)

    @contextlib.asynccontextmanager
    async def decoded(
        self,
        file: SharedFile,
        request: Request,
        *,
        priority: Priority,
        deadline: float,
        client: str = "",
    ) -> AsyncIterator[DecodedMedia]:
        """The views of a file, until the block ends; `deadline` is a time of the event loop.

        Raises ScoringError as `Decoder.decode` does, or with DECODER_CRASHED, DECODER_TIMEOUT,
        DECODER_KILLED, QUEUE_FULL or DEADLINE_EXCEEDED.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[DecodedFile] = loop.create_future()
        ticket = self._enqueue(
            _Job(file, request, priority, deadline, client, result, loop.time(), recorded_span())
        )
        try:
            decoded = await result
        except asyncio.CancelledError:
            if result.done() and not result.cancelled() and result.exception() is None:
                result.result().close()
            raise
        finally:
            self._remove(ticket, priority)
        count = len(decoded.media.views)
        self._held_views += count
        try:
            yield decoded.media
        finally:
            self._held_views -= count
            decoded.close()
            self._dispatch()

    def _enqueue(self, job: _Job) -> int:
        try:
            ticket = self._queue.add(job, job.priority, job.deadline, job.client)
        except QueueFullError as error:
            raise ScoringError(Reason.QUEUE_FULL, "the queue of the decoders is full") from error
        if job.priority is Priority.INTERACTIVE:
            self._last_upload = max(self._last_upload, job.arrived)
        self._metrics.decoder_queue.enter(ticket, job.priority, job.arrived)
        self._dispatch()
        return ticket

    def _remove(self, ticket: int, priority: Priority) -> None:
        self._queue.remove(ticket)
        self._metrics.decoder_queue.leave(ticket, priority)

    def _dispatch(self) -> None:
        """Hands waiting files to idle processes."""
        now = asyncio.get_running_loop().time()
        while self._idle and self._held_views < self._max_views:
            entry = self._queue.first(self._least(now))
            if entry is None:
                return
            job, late = entry.item, entry.deadline <= now
            if not late and not job.result.done():
                self._queue.charge(entry.ticket)
            self._remove(entry.ticket, entry.priority)  # now: handing it over may put it back
            if late:
                message = "the deadline passed while the image waited to be decoded"
                _fail(job, ScoringError(Reason.DEADLINE_EXCEEDED, message))
            elif not job.result.done():
                self._hand_over(job, self._idle.pop(), now)

    def _least(self, now: float) -> Priority:
        """The least priority that an idle process may have a file of."""
        uploads_come = now - self._last_upload < UPLOADS_COME
        is_kept = len(self._idle) == 1 and self._workers > 1 and uploads_come
        if is_kept or self._held_views >= self._max_views / 2:
            return Priority.INTERACTIVE
        return Priority.BULK

    def _hand_over(self, job: _Job, process: DecoderProcess, now: float) -> None:
        left = job.deadline - now
        if not job.again:
            self._metrics.observe_stage("decode_wait", now - job.arrived)
            add_past_span("decode queue", job.span, now - job.arrived)
        request = replace(
            job.request,
            frame_seconds=min(job.request.frame_seconds, _FRAMES_SHARE * left),
            seconds=min(self._settings.seconds, max(_LEAST_SECONDS, _PROCESSOR_SHARE * left)),
        )
        try:
            # Not in the task: the caller may be gone, and the file closed, before that runs.
            process.hand_over(job.file, request)
        except NeverReceivedError:
            self._metrics.count_decoder_restart("gone")
            self._spawn(self._replace(process))
            self._again(job)
        else:
            patience = min(self._settings.seconds, max(_LEAST_SECONDS, _PATIENCE_SHARE * left))
            self._spawn(self._finish(job, process, patience))

    async def _finish(self, job: _Job, process: DecoderProcess, patience: float) -> None:
        """Takes the answer, and sees to it that there is a process for the next file."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._count_working(job.priority, 1)
        try:
            goes_on = await self._take_answer(job, process, patience, began)
        finally:
            self._count_working(job.priority, -1)
        self._metrics.observe_stage("decode", loop.time() - began)
        if goes_on:
            self._idle.append(process)
            self._dispatch()
        else:
            self._spawn(self._replace(process))

    async def _take_answer(
        self, job: _Job, process: DecoderProcess, patience: float, began: float
    ) -> bool:
        """Gives the caller what the process found; says whether it can go on to another file."""
        loop = asyncio.get_running_loop()
        try:
            decoded = await process.decoded(job.request, patience)
            self.times.observe(loop.time() - began, len(decoded.media.views))
        except NeverReceivedError:
            self._metrics.count_decoder_restart("gone")
            self._again(job)
        except KilledError:
            self._metrics.count_decoder_restart("killed")
            if job.again:
                message = "the decoder was killed from outside, twice"
                _fail(job, ScoringError(Reason.DECODER_KILLED, message))
            else:
                self._again(replace(job, again=True))
        except ScoringError as error:
            self.times.observe(loop.time() - began, 0)
            _fail(job, error)
            if error.reason not in _ENDS_PROCESS:
                return True
            self._metrics.count_decoder_restart(error.reason.name.lower())
        except Exception:
            # A mistake of ours must neither leave the caller waiting nor cost a process for good.
            log.exception("a decoder's answer could not be taken")
            self._metrics.count_decoder_restart("error")
            _fail(job, ScoringError(Reason.DECODER_CRASHED, "the decoder's answer was lost"))
        else:
            if job.result.done():
                decoded.close()
            else:
                job.result.set_result(decoded)
            return True
        return False

    def _count_working(self, priority: Priority, more: int) -> None:
        self._working[priority] += more
        self._on_busy(sum(self._working.values()) / self._workers)

    def _again(self, job: _Job) -> None:
        """Puts a file back that was not at fault, as far as one can know."""
        if job.result.done():
            return
        try:
            self._enqueue(job)
        except ScoringError as error:
            _fail(job, error)

    async def _start_one(self) -> str:
        """Starts a process; says why it could not filter its system calls, if so.

        Raises OSError or DecoderStartError.
        """
        process = DecoderProcess(self._settings)
        self._processes.add(process)
        try:
            unfiltered = await process.ready()
            if unfiltered and self._filter_required:
                raise DecoderStartError(f"no filter of system calls: {unfiltered}")
        except BaseException:
            self._processes.discard(process)
            await process.kill()
            raise
        self._idle.append(process)
        self._dispatch()
        return unfiltered

    async def _replace(self, process: DecoderProcess) -> None:
        self._processes.discard(process)
        while True:
            try:
                await process.kill()
                await self._start_one()
            except Exception as error:  # whatever is short now may be had again later
                log.error("a decoder process can't be started: %s", error)
                await asyncio.sleep(_RESTART_SECONDS)
            else:
                return

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _fail(job: _Job, error: ScoringError) -> None:
    if not job.result.done():
        job.result.set_exception(error)
