# The worker: runs jobs under torchrun.
# Build arguments, and builds without a registry or an index: docker/README.md.
#   docker build -f docker/worker.Dockerfile -t nanochat/worker:dev .

# cpu or cuda.
ARG VARIANT=cpu
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# For cuda: what the image runs on, and what has the compiler for kernels. The CUDA libraries come with torch's wheel.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG CUDA_BUILD_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04
# An image with wheels in its root, which pip then finds beside its index.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${PYTHON_IMAGE} AS base-cpu

# torch.compile needs a C++ compiler and Python's headers when a model first runs.
FROM ${CUDA_IMAGE} AS base-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/bin/python3 /usr/local/bin/python

FROM base-${VARIANT} AS base
# The number is what Kubernetes asks for and what owns the volumes.
RUN groupadd --gid 10001 nanochat \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nanochat \
    && install --directory --owner nanochat --group nanochat /var/lib/nanochat \
    && install --directory /data

# torch and what the library needs: the same steps in worker and inference, so that both images share the large layer.
FROM base AS torch
ARG VARIANT
ARG PIP_INDEX_URL
# pip lives beside /app and stays out of the image.
RUN python -m venv /opt/pip && python -m venv --without-pip /app
ENV PATH=/opt/pip/bin:$PATH PIP_PYTHON=/app/bin/python PIP_CONSTRAINT=/src/constraints.txt PIP_FIND_LINKS=/wheels \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
ARG TORCH=torch==2.13.0
# auto: CPU builds for cpu, pip's ordinary index for cuda. Empty: the ordinary index for both.
ARG TORCH_INDEX_URL=auto
# Alone and first: beside other requirements pip may prefer another build. What it needs comes with the next step.
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    case "$VARIANT $TORCH_INDEX_URL" in \
        "cpu auto") set -- --index-url https://download.pytorch.org/whl/cpu ;; \
        "$VARIANT auto" | "$VARIANT ") set -- ;; \
        *) set -- --index-url "$TORCH_INDEX_URL" ;; \
    esac \
    && pip install --no-deps "$@" "$TORCH"

FROM torch AS library
COPY shared/pyproject.toml shared/
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install './shared[torch,postgres]'

# Kernels for GPUs. flash-attn has no wheel for every torch, and is then compiled: an hour or more. Empty: without.
FROM ${CUDA_BUILD_IMAGE} AS kernels-build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/bin/python3 /usr/local/bin/python
COPY --from=library /app /app
COPY --from=library /opt/pip /opt/pip
ENV PATH=/opt/pip/bin:$PATH PIP_PYTHON=/app/bin/python PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_INDEX_URL
ARG FLASH_ATTN=flash-attn==2.8.3.post2
ARG TORCHAO=torchao==0.18.0
ARG MAX_JOBS=4
WORKDIR /kernels
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install setuptools wheel packaging psutil \
    && for package in $FLASH_ATTN $TORCHAO; do \
        pip wheel --no-deps --no-build-isolation --wheel-dir /kernels "$package" || exit 1; \
    done

FROM scratch AS kernels-cpu
FROM scratch AS kernels-cuda
COPY --from=kernels-build /kernels /
FROM kernels-${VARIANT} AS kernels

# What this service needs more, in a layer of its own: /service is laid over /app.
FROM library AS service
COPY services/worker/pyproject.toml services/worker/
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=kernels,target=/kernels \
    pip install --prefix /service ./services/worker $(find /kernels -name '*.whl')

# The model's step on a CPU, for every processor of this architecture: the running image has no compiler.
FROM base AS native
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY shared/nanochat/__init__.py shared/nanochat/errors.py nanochat/
COPY shared/nanochat/native nanochat/native
RUN python -m nanochat.native.build --every-variant

# Code, compiled here since the running image is read-only.
FROM base AS code
COPY shared/nanochat /app/code/nanochat
COPY services/worker/nanochat_worker /app/code/nanochat_worker
COPY --from=native /src/nanochat/native/prebuilt /app/code/nanochat/native/prebuilt
RUN python -m compileall -q /app/code

FROM base
COPY --from=library /app /app
COPY --from=service /service /app
COPY docker/healthcheck.py /app/
COPY --from=code /app/code /app/code
ENV PATH=/app/bin:$PATH PYTHONPATH=/app/code PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NANOCHAT_HOME=/var/lib/nanochat NANOCHAT_DATA_ROOTS=/data \
    NANOCHAT_WORKER_METRICS_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-I", "/app/healthcheck.py", "http://127.0.0.1:8003/health/live"]
ENTRYPOINT ["python", "-m", "nanochat_worker"]
ARG NANOCHAT_VERSION=dev
LABEL org.opencontainers.image.title="nanochat worker" org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=$NANOCHAT_VERSION
