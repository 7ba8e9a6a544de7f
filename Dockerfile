# The images of both services. From the root of the checkout:
#
#   docker build --target gateway --tag imagesafety-gateway:0.1.0 .
#   docker build --target inference --tag imagesafety-inference:0.1.0-cpu .
#   docker build --target inference --tag imagesafety-inference:0.1.0-cuda \
#     --build-arg TORCH_INDEX= .
#   docker build --target all-in-one --tag imagesafety:0.1.0 .
#   docker build --target tools --tag imagesafety-tools:0.1.0 .
#
# All run as user 10001 and take a read-only root file system. The gateway writes to /data, inference
# to /cache and /tmp; deploy/ and k8s/ mount something there. `tools` is the command for evaluate,
# calibrate and scan: it calls inference, and keeps what it knows in /data. `all-in-one` runs both
# services. Each has the distribution installed, as pip would on any machine.
#
# `make containers` builds all of them and plays with them.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# A stage of its own, so that other changes of pyproject.toml install no packages anew.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /build
COPY pyproject.toml ./
COPY tools/requirements.py tools/
RUN python tools/requirements.py gateway > gateway.txt \
    && python tools/requirements.py inference > inference.txt \
    && python tools/requirements.py evaluate scan > tools.txt

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# No pip in there: an image that runs needs none.
RUN python -m venv --without-pip /opt/venv
COPY constraints.txt ./

# The distribution alone, in an environment at the same place: images copy it over that of their
# packages, so that a change of code makes a layer of some megabytes anew and not PyTorch's.
FROM packages AS distribution
COPY pyproject.toml README.md LICENSE ./
COPY policies policies
COPY imagesafety imagesafety
COPY gateway gateway
COPY inference inference
COPY telemetry telemetry
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=constraints.txt python -m pip wheel --no-deps --wheel-dir wheels . \
    && python -m pip --python /opt/venv/bin/python install --no-deps wheels/*.whl

FROM packages AS gateway-packages
COPY --from=requirements /build/gateway.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install \
        --constraint constraints.txt --requirement gateway.txt

FROM packages AS tools-packages
COPY --from=requirements /build/tools.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install \
        --constraint constraints.txt --requirement tools.txt

FROM packages AS inference-packages
# pdqhash has no wheel for each Python, and is compiled here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# PyTorch's own index, whose wheels compute on the CPU only; nothing but these two is taken from
# there. Empty means pip's own index: its wheels bring CUDA, some gigabytes of it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps \
        ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} --constraint constraints.txt torch torchvision
COPY --from=requirements /build/inference.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install \
        --constraint constraints.txt --requirement inference.txt

FROM inference-packages AS all-packages
COPY --from=requirements /build/gateway.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install \
        --constraint constraints.txt --requirement gateway.txt

FROM ${PYTHON_IMAGE} AS runtime
# tini: the first process of a container ignores SIGTERM while it does not handle it, and a model
# takes long to load. libseccomp2: the filter of system calls around the decoders. libstdc++6: what
# pdqhash is linked with. A user with a name, and HOME: PyTorch and OpenVINO ask for them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libseccomp2 libstdc++6 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 imagesafety \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp imagesafety
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM runtime AS inference-runtime
RUN install --directory --owner 10001 --group 10001 /cache /weights
# NVIDIA_…: what NVIDIA's container runtime mounts, where there is one.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/weights/huggingface \
    IMAGESAFETY_INFERENCE_CACHE_FOLDER=/cache/imagesafety

# Both services in one container, in place of pictrs-safety (deploy/compose.pictrs-safety.yml). Any user
# may write to /data, because pictrs-safety's compose file says `user: 991:991`.
FROM inference-runtime AS all-in-one
COPY --from=all-packages /opt/venv /opt/venv
COPY --from=distribution /opt/venv /opt/venv
RUN install --directory --mode 1777 /data
ENV IMAGESAFETY_GATEWAY_LISTEN=0.0.0.0:14051 \
    IMAGESAFETY_GATEWAY_ADMIN_LISTEN=0.0.0.0:14052 \
    IMAGESAFETY_GATEWAY_DATA_FOLDER=/data/ledger \
    IMAGESAFETY_GATEWAY_POLICY=vit-l-14-openai \
    IMAGESAFETY_INFERENCE_CACHE_FOLDER=/data/backends \
    HF_HOME=/data/huggingface
USER 10001:10001
VOLUME /data
EXPOSE 14051 14052
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:14051/livez', timeout=4)"]
ENTRYPOINT ["tini", "--", "imagesafety", "up"]

FROM inference-runtime AS inference
COPY --from=inference-packages /opt/venv /opt/venv
COPY --from=distribution /opt/venv /opt/venv
ENV IMAGESAFETY_INFERENCE_LISTEN=0.0.0.0:50051 \
    IMAGESAFETY_INFERENCE_METRICS_LISTEN=0.0.0.0:50052
USER 10001:10001
EXPOSE 50051 50052
HEALTHCHECK --interval=30s --timeout=5s --start-period=600s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:50052/readyz', timeout=4)"]
ENTRYPOINT ["tini", "--", "python", "-m", "inference"]

FROM runtime AS tools
COPY --from=tools-packages /opt/venv /opt/venv
COPY --from=distribution /opt/venv /opt/venv
RUN install --directory --mode 1777 /data
ENV XDG_CACHE_HOME=/data/cache XDG_DATA_HOME=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
ENTRYPOINT ["tini", "--", "imagesafety"]

FROM runtime AS gateway
COPY --from=gateway-packages /opt/venv /opt/venv
COPY --from=distribution /opt/venv /opt/venv
RUN install --directory --owner 10001 --group 10001 /data
ENV IMAGESAFETY_GATEWAY_LISTEN=0.0.0.0:14051 \
    IMAGESAFETY_GATEWAY_ADMIN_LISTEN=0.0.0.0:14052 \
    IMAGESAFETY_GATEWAY_DATA_FOLDER=/data
USER 10001:10001
VOLUME /data
EXPOSE 14051 14052
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:14051/livez', timeout=4)"]
ENTRYPOINT ["tini", "--", "python", "-m", "gateway"]
