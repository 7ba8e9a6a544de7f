"""Starts the gRPC server, and drains it when asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import grpc

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, AdmissionLimits
from inference.backends.cache import BackendCache
from inference.batch_schedule import Schedule, ScheduleLimits
from inference.batch_times import BatchTimes, shortest_size, worthwhile_size
from inference.batcher import Batcher
from inference.concepts import ConceptCache
from inference.decoder.media import MediaLimits, Preprocessing
from inference.decoder.media_types import SCANNED
from inference.decoder.protocol import WorkerSettings
from inference.decoder_pool import DecoderPool
from inference.decoder_process import DecoderStartError
from inference.device_health import DeviceHealth
from inference.encoder import Embeddings, Encoder, EncoderThread
from inference.grpc_server import GrpcServer
from inference.health_service import HealthService
from inference.idle_measuring import IdleMeasuring, Pauses
from inference.load import Load
from inference.load_reports import LoadReports
from inference.messages import duration_message
from inference.metrics import Metrics
from inference.metrics_server import Probes, serving_metrics
from inference.model_source import DEMO, ModelError, parse_model
from inference.scoring import Scorer
from inference.service import ScoringService
from inference.serving_status import LIVENESS, SERVICE_NAME, Trouble
from inference.settings import Settings, load_settings
from inference.tls import TlsFiles, server_credentials
from inference.warm_up import Batches, KeptTimes, measure_batches, warmed_up
from inference.wedge_watch import WedgeWatch, wedged_after
from telemetry.exporting import TracingError
from telemetry.logs import configure_logs
from telemetry.tracing import tracing

_SPARE = 0.2  # of the time that a call has left: for what estimates don't know
_UNREADY_SECONDS = 5.0  # without the event loop
_CLOSE_SECONDS = 2.0  # that a pass may still take, when its callers are gone
_PAUSES = Pauses()  # of measuring batches again

log = logging.getLogger("inference")


def main(arguments: Sequence[str]) -> int:
    """Runs the service until SIGTERM or SIGINT; the exit code."""
    settings = load_settings(arguments)
    configure_logs("inference", settings.log_level, settings.log_format)
    metrics, probes = Metrics(), Probes()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(tracing("imagesafety-inference"))
            # Before the model is loaded, so that probes hear that it is, and not nothing.
            stack.enter_context(serving_metrics(settings.metrics_listen, metrics, probes))
            credentials = _credentials(settings)
            encoder = load_encoder(settings)
        except (ModelError, OSError, TracingError) as error:
            print(f"inference: {error}", file=sys.stderr)  # noqa: T201
            return 2
        except KeyboardInterrupt:
            return 130
        return asyncio.run(_serve(settings, encoder, credentials, metrics, probes))


def load_encoder(settings: Settings) -> Encoder:
    """Loads the model of the settings. Raises ModelError."""
    source = parse_model(settings.model)
    # Threads of OpenMP that have nothing to do would keep the cores from decoders for a while.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Imported late: it takes seconds, and a wrong setting should not.
    from inference.backends.lanes import CpuShare
    from inference.lean_imports import import_open_clip

    import_open_clip(source, device=settings.device, backend=settings.backend)
    from inference.backends.loading import BackendOptions
    from inference.open_clip_encoder import OpenClipEncoder

    encoder = OpenClipEncoder(
        settings.model,
        source,
        device=settings.device,
        precision=settings.precision,
        share=CpuShare.of(settings.threads, settings.parallel_batches),
        backend=settings.backend,
        options=BackendOptions(
            seconds=settings.backend_seconds,
            cache=_cache(settings.cache_folder),
            calibration_folder=settings.calibration_folder,
            max_batch=64 if settings.max_batch == "auto" else settings.max_batch,
        ),
    )
    model = encoder.description
    log.info("model %s, %s, %s", model.name, model.backend, model.weights_digest)
    if settings.model == DEMO:
        log.warning(
            "the demo model knows drawn shapes and colours: it is for trying things out and "
            "moderates nothing"
        )
    return encoder


_cache = functools.cache(BackendCache)  # once: it warns of a folder that can't be used


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Reads the TLS files. Raises OSError for one that can't be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return server_credentials(
        TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    )


async def _serve(
    settings: Settings,
    encoder: Encoder,
    credentials: grpc.ServerCredentials | None,
    metrics: Metrics,
    probes: Probes,
) -> int:
    model, load, now = encoder.description, Load(), asyncio.get_running_loop().time
    metrics.tell_model(model.name, model.weights_digest, model.backend)
    thread = EncoderThread(encoder, metrics.device, lambda busy: load.device.set(busy, now()))
    decoders = _decoder_pool(
        settings, model.preprocessing, metrics, lambda part: load.decoders.set(part, now())
    )
    starting = asyncio.create_task(decoders.start())
    batches = Batches(
        thread.encode_images,
        model.preprocessing.view_bytes,
        None if settings.max_batch == "auto" else settings.max_batch,
        encoder.concurrency,
    )
    kept = KeptTimes(_cache(settings.cache_folder), batches, model.speed_key)
    try:
        measured = await _measured(batches, kept, starting)
    except Exception as error:  # what a device raises that has no memory for the batch
        print(f"inference: the model can't be run: {error}", file=sys.stderr)  # noqa: T201
        await _stop_starting(starting, decoders)
        return 2
    times = BatchTimes(measured, batches.overlap)
    limits = _schedule_limits(settings, measured, batches.overlap)
    health = HealthService()
    device = DeviceHealth(
        lambda: thread.encode_images([bytes(model.preprocessing.view_bytes)]),
        health.announce,
    )
    wedge = WedgeWatch(
        thread.running_for,
        wedged_after(settings.wedged_seconds, times(limits.max_batch)),
        lambda stuck: health.announce(Trouble.DEVICE_STUCK, stuck),
    )
    schedule = Schedule(times, limits)
    batcher = Batcher(thread.encode_images, schedule, device, metrics)

    async def encode_texts(texts: Sequence[str]) -> Embeddings:
        try:
            return await thread.encode_texts(texts)
        except Exception:
            device.failed()
            raise

    concepts = ConceptCache(
        encode_texts,
        max_sets=settings.concept_cache_sets,
        text_batch=settings.text_batch,
        metrics=metrics,
    )
    scorer = Scorer(decoders, batcher, concepts, frame_seconds=settings.frame_seconds)
    admission = Admission(_admission_limits(settings))
    metrics.watch_service(
        images=lambda: admission.images,
        image_bytes=lambda: admission.bytes,
        decoders=lambda: decoders.count,
    )
    service = ScoringService(
        scorer,
        admission,
        model,
        _limits(settings),
        stream_images=settings.stream_images,
        max_streams=settings.max_images,
        idle_seconds=settings.idle_seconds,
        load=load,
        metrics=metrics,
        embeddings=settings.embeddings,
    )
    reports = LoadReports(lambda: load.report(now(), scorer.waiting_seconds()))
    server = GrpcServer(settings, service, health, reports)
    try:
        server.listen(settings.listen, credentials)
        await starting
    except (OSError, DecoderStartError) as error:
        print(f"inference: {error}", file=sys.stderr)  # noqa: T201
        await _stop_starting(starting, decoders)
        return 2
    await health.serve()
    wedge.start()
    probes.live = lambda: health.objection(LIVENESS) or wedge.objection()
    probes.ready = lambda: health.objection(SERVICE_NAME) or wedge.objection(_UNREADY_SECONDS)
    await server.start()
    log.info("listening on %s", settings.listen)

    def replace(measured: dict[int, float]) -> None:
        """Let what was measured again hold from now on, and at the next start."""
        kept.keep(measured)
        times.replace(measured)
        changed = _schedule_limits(settings, measured, batches.overlap)
        schedule.resize(changed.max_batch, changed.short_batch)
        wedge.allow(wedged_after(settings.wedged_seconds, times(changed.max_batch)))

    again = asyncio.create_task(
        _measured_again(IdleMeasuring(batches, admission, _PAUSES), measured, replace)
    )
    await _signal()
    log.info("draining: running calls are finished")
    again.cancel()
    await server.drain()
    await wedge.close()
    await device.close()
    await batcher.close()
    await decoders.close()
    if not await thread.close(_CLOSE_SECONDS):
        _abandon()
    encoder.close()
    log.info("stopped")
    return 0


async def _measured(
    batches: Batches, kept: KeptTimes, starting: asyncio.Task[None]
) -> dict[int, float]:
    """Warm the model up; seconds of batches by size, kept or measured.

    Raises what the device does.
    """
    measured = await warmed_up(batches, kept)
    if measured is None:
        await asyncio.wait([starting])  # else the start of decoders would be measured as well
        measured = await measure_batches(batches)
        kept.keep(measured)
    return measured


async def _measured_again(
    measuring: IdleMeasuring,
    measured: dict[int, float],
    replace: Callable[[dict[int, float]], None],
) -> None:
    try:
        await measuring.run(measured, replace)
    except Exception as error:  # a device that fails for uploads too is noticed there
        log.warning("batches can't be measured again: %s", error)


def _schedule_limits(
    settings: Settings, measured: dict[int, float], overlap: int
) -> ScheduleLimits:
    """The limits that go with what was measured."""
    max_batch = settings.max_batch
    if max_batch == "auto":
        max_batch = worthwhile_size(measured, overlap)
    limits = ScheduleLimits(
        max_batch=max_batch,
        short_batch=shortest_size(measured, max_batch),
        max_queue=settings.max_queue,
        max_delay=settings.max_queue_delay,
        overlap=overlap,
        weights=settings.weights,
        spare=_SPARE,
    )
    log.info(
        "batches of at most %d, of bulk work of %d while uploads come",
        limits.max_batch,
        limits.short_batch,
    )
    return limits


async def _stop_starting(starting: asyncio.Task[None], decoders: DecoderPool) -> None:
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await decoders.close()


def _admission_limits(settings: Settings) -> AdmissionLimits:
    return AdmissionLimits(
        max_images=settings.max_images,
        max_bytes=settings.max_bytes_in_flight,
        max_image_bytes=settings.max_image_bytes,
        max_client_images=settings.max_client_images,
        quotas=settings.quotas,
    )


def _abandon() -> None:
    """Ends the process although a pass does not come back, which Python would wait for."""
    log.error("stopped, while the device did not come back")
    logging.shutdown()
    os._exit(1)


def _decoder_pool(
    settings: Settings,
    preprocessing: Preprocessing,
    metrics: Metrics,
    on_busy: Callable[[float], None],
) -> DecoderPool:
    limits = MediaLimits(
        max_pixels=settings.max_image_pixels,
        max_frames=settings.max_media_frames,
        max_seconds=settings.max_media_seconds,
    )
    worker = WorkerSettings(
        preprocessing=preprocessing,
        limits=limits,
        memory_bytes=settings.decode_memory,
        seconds=settings.decode_seconds,
        filtered=settings.sandbox != "off",
    )
    return DecoderPool(
        worker,
        workers=settings.decoders,
        max_queue=settings.max_images,
        max_views=4 * settings.max_queue,
        weights=settings.weights,
        filter_required=settings.sandbox == "required",
        on_busy=on_busy,
        metrics=metrics,
    )


def _limits(settings: Settings) -> scoring_pb2.Limits:
    return scoring_pb2.Limits(
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_message_bytes=settings.max_message_bytes,
        max_concepts=settings.max_concepts,
        max_prompts=settings.max_prompts,
        max_prompt_characters=settings.max_prompt_characters,
        media_types=SCANNED,
        max_media_frames=settings.max_media_frames,
        max_media_duration=duration_message(settings.max_media_seconds),
        default_max_frames=settings.max_frames,
    )


async def _signal() -> None:
    """Returns at SIGTERM or SIGINT."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, asked.set)
    await asked.wait()
