"""Starts the gRPC server, and drains it when asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from inference.admission import Admission
from inference.batch_schedule import Schedule, ScheduleLimits
from inference.batch_times import BatchTimes, worthwhile_size
from inference.batcher import Batcher
from inference.concepts import ConceptCache
from inference.decoder.media import MediaLimits, Preprocessing
from inference.decoder.media_types import SCANNED
from inference.decoder.protocol import WorkerSettings
from inference.decoder_pool import DecoderPool
from inference.decoder_process import DecoderStartError
from inference.device_health import DeviceHealth
from inference.encoder import Embeddings, Encoder, EncoderThread
from inference.messages import duration_message
from inference.metrics import Metrics
from inference.metrics_server import Probes, serving_metrics
from inference.model_source import DEMO, ModelError, parse_model
from inference.scoring import Scorer
from inference.service import ScoringService
from inference.settings import Settings, load_settings
from inference.warm_up import measure_batches
from telemetry.exporting import TracingError
from telemetry.logs import configure_logs
from telemetry.tracing import tracing

SERVICE_NAME = scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name
_MAX_PENDING = 10_000  # calls that have come, and are not looked at yet

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
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    # gRPC would take anything here, and refuse every connection later.
    try:
        check = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        check.load_cert_chain(certificate, key)
        if settings.tls_client_ca is not None:
            check.load_verify_locations(settings.tls_client_ca)
    except OSError as error:
        files = ", ".join(str(f) for f in (certificate, key, settings.tls_client_ca) if f)
        raise OSError(f"TLS files can't be used ({files}): {error}") from error
    client_ca = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


async def _serve(
    settings: Settings,
    encoder: Encoder,
    credentials: grpc.ServerCredentials | None,
    metrics: Metrics,
    probes: Probes,
) -> int:
    model = encoder.description
    metrics.tell_model(model.name, model.weights_digest, model.backend)
    thread = EncoderThread(encoder, metrics.device)
    decoders = _decoder_pool(settings, model.preprocessing, metrics)
    try:
        schedule = await _schedule(settings, encoder, thread)
    except Exception as error:  # what a device raises that has no memory for the batch
        print(f"inference: the model can't be run: {error}", file=sys.stderr)  # noqa: T201
        return 2
    health_service = health.aio.HealthServicer()
    device = DeviceHealth(
        lambda: thread.encode_images([bytes(model.preprocessing.view_bytes)]),
        lambda works: _announce(health_service, probes, works),
    )
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
    admission = Admission(
        max_images=settings.max_images,
        max_bytes=settings.max_bytes_in_flight,
        max_image_bytes=settings.max_image_bytes,
    )
    metrics.watch_service(
        images=lambda: admission.images,
        image_bytes=lambda: admission.bytes,
        decoders=lambda: len(decoders.pids),
    )
    service = ScoringService(
        scorer,
        admission,
        model,
        _limits(settings),
        stream_images=settings.stream_images,
        idle_seconds=settings.idle_seconds,
        metrics=metrics,
    )
    server = _grpc_server(settings, service, health_service)
    try:
        _listen(server, settings.listen, credentials)
        await decoders.start()
    except (OSError, DecoderStartError) as error:
        print(f"inference: {error}", file=sys.stderr)  # noqa: T201
        await decoders.close()
        return 2
    await server.start()
    await _announce(health_service, probes, True)
    log.info("listening on %s", settings.listen)

    await _signal()
    log.info("draining: running calls are finished")
    probes.ready = lambda: "the replica is shutting down"
    service.drain()
    await health_service.enter_graceful_shutdown()
    await server.stop(settings.drain_seconds)
    await device.close()
    await batcher.close()
    await decoders.close()
    thread.close()
    encoder.close()
    log.info("stopped")
    return 0


async def _schedule(settings: Settings, encoder: Encoder, thread: EncoderThread) -> Schedule:
    """Warms the model up, and measures it. Raises what the device does."""
    wanted = None if settings.max_batch == "auto" else settings.max_batch
    view_bytes = encoder.description.preprocessing.view_bytes
    measured = await measure_batches(thread.encode_images, view_bytes, wanted, encoder.concurrency)
    limits = ScheduleLimits(
        max_batch=wanted or worthwhile_size(measured, encoder.concurrency),
        max_queue=settings.max_queue,
        max_delay=settings.max_queue_delay,
        overlap=encoder.concurrency,
        weights=settings.weights,
    )
    log.info("batches of at most %d", limits.max_batch)
    return Schedule(BatchTimes(measured, encoder.concurrency), limits)


async def _announce(health_service: health.aio.HealthServicer, probes: Probes, works: bool) -> None:
    probes.ready = lambda: None if works else "the device fails"
    status = health_pb2.HealthCheckResponse
    for name in ("", SERVICE_NAME):
        await health_service.set(name, status.SERVING if works else status.NOT_SERVING)


def _decoder_pool(
    settings: Settings, preprocessing: Preprocessing, metrics: Metrics
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
        metrics=metrics,
    )


def _grpc_server(
    settings: Settings, service: ScoringService, health_service: health.aio.HealthServicer
) -> grpc.aio.Server:
    server = grpc.aio.server(
        # For calls that bring no image: streams that idle, probes. Images are counted by Admission.
        maximum_concurrent_rpcs=4 * settings.max_images + 1000,
        options=(
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            # Of a burst, gRPC would else end calls as CANCELLED, at random, from 1000 on.
            ("grpc.server.max_pending_requests", _MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
            ("grpc.so_reuseport", 0),  # two services on one port would be a mistake unnoticed
            # The client pings to notice a replica that hangs; without this it is told off.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
        ),
    )
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection(
        (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def _listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> None:
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        reason = str(error).partition(";")[0]
        raise OSError(f"cannot listen on {address}: {reason}") from error
    if bound == 0:
        raise OSError(f"cannot listen on {address}: is something else listening there?")


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
