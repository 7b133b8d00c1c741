# The trainer: REST over jobs; and the `nanochat` command. Without torch.
# Build arguments, and builds without a registry or an index: docker/README.md.
#   docker build -f docker/trainer.Dockerfile -t nanochat/trainer:dev .

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# An image with wheels in its root, which pip then finds beside its index.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${PYTHON_IMAGE} AS base
# The number is what Kubernetes asks for and what owns the volumes.
RUN groupadd --gid 10001 nanochat \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nanochat \
    && install --directory --owner nanochat --group nanochat /var/lib/nanochat \
    && install --directory /data

# Packages, from the projects' own lists: a change of code leaves this layer as it is.
FROM base AS packages
ARG PIP_INDEX_URL
# pip lives beside /app and stays out of the image.
RUN python -m venv /opt/pip && python -m venv --without-pip /app
ENV PATH=/opt/pip/bin:$PATH PIP_PYTHON=/app/bin/python PIP_CONSTRAINT=/src/constraints.txt PIP_FIND_LINKS=/wheels \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
COPY shared/pyproject.toml shared/
COPY services/trainer/pyproject.toml services/trainer/
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install './shared[postgres,cli]' ./services/trainer

# Code, compiled here since the running image is read-only.
FROM base AS code
COPY shared/nanochat /app/code/nanochat
COPY services/trainer/nanochat_trainer /app/code/nanochat_trainer
RUN python -m compileall -q /app/code

FROM base
COPY --from=packages /app /app
COPY docker/healthcheck.py /app/
COPY --from=code /app/code /app/code
ENV PATH=/app/bin:$PATH PYTHONPATH=/app/code PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NANOCHAT_HOME=/var/lib/nanochat NANOCHAT_DATA_ROOTS=/data \
    NANOCHAT_TRAINER_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-I", "/app/healthcheck.py", "http://127.0.0.1:8001/health/live"]
ENTRYPOINT ["python", "-m", "nanochat_trainer"]
ARG NANOCHAT_VERSION=dev
LABEL org.opencontainers.image.title="nanochat trainer" org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=$NANOCHAT_VERSION
