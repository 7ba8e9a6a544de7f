"""Starts the gRPC server, and drains it when asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import grpc

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, AdmissionLimits
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
from inference.warm_up import measure_batches
from inference.wedge_watch import WedgeWatch, wedged_after
from telemetry.exporting import TracingError
from telemetry.logs import configure_logs
from telemetry.tracing import tracing

_SPARE = 0.2  # of the time that a call has left: for what estimates don't know
_UNREADY_SECONDS = 5.0  # without the event loop
_CLOSE_SECONDS = 2.0  # that a pass may still take, when its callers are gone

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
            cache_folder=settings.cache_folder,
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
    try:
        times, limits = await _measured(settings, encoder, thread)
    except Exception as error:  # what a device raises that has no memory for the batch
        print(f"inference: the model can't be run: {error}", file=sys.stderr)  # noqa: T201
        return 2
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
    batcher = Batcher(thread.encode_images, Schedule(times, limits), device, metrics)

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
        await decoders.start()
    except (OSError, DecoderStartError) as error:
        print(f"inference: {error}", file=sys.stderr)  # noqa: T201
        await decoders.close()
        return 2
    await health.serve()
    wedge.start()
    probes.live = lambda: health.objection(LIVENESS) or wedge.objection()
    probes.ready = lambda: health.objection(SERVICE_NAME) or wedge.objection(_UNREADY_SECONDS)
    await server.start()
    log.info("listening on %s", settings.listen)

    await _signal()
    log.info("draining: running calls are finished")
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
    settings: Settings, encoder: Encoder, thread: EncoderThread
) -> tuple[BatchTimes, ScheduleLimits]:
    """Warms the model up, and measures it. Raises what the device does."""
    wanted = None if settings.max_batch == "auto" else settings.max_batch
    view_bytes = encoder.description.preprocessing.view_bytes
    measured = await measure_batches(thread.encode_images, view_bytes, wanted, encoder.concurrency)
    max_batch = wanted or worthwhile_size(measured, encoder.concurrency)
    limits = ScheduleLimits(
        max_batch=max_batch,
        short_batch=shortest_size(measured, max_batch),
        max_queue=settings.max_queue,
        max_delay=settings.max_queue_delay,
        overlap=encoder.concurrency,
        weights=settings.weights,
        spare=_SPARE,
    )
    log.info(
        "batches of at most %d, of bulk work of %d while uploads come",
        limits.max_batch,
        limits.short_batch,
    )
    return BatchTimes(measured, encoder.concurrency), limits


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
