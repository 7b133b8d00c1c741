# The gateway: pages and the public API. Without torch.
# Build arguments, and builds without a registry or an index: docker/README.md.
#   docker build -f docker/gateway.Dockerfile -t nanochat/gateway:dev .

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG NODE_IMAGE=node:22-bookworm-slim
# An image with wheels in its root, which pip then finds beside its index.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

# The pages.
FROM ${NODE_IMAGE} AS web
ARG NPM_REGISTRY
WORKDIR /src/services/gateway/web
COPY services/gateway/web/package.json services/gateway/web/package-lock.json ./
RUN --mount=type=cache,id=nanochat-npm,target=/root/.npm \
    --mount=type=secret,id=npm,target=/root/.npmrc \
    npm ci --no-fund --no-audit --loglevel=error ${NPM_REGISTRY:+--registry "$NPM_REGISTRY"}
COPY services/gateway/web ./
RUN npm run --silent build

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
COPY services/gateway/pyproject.toml services/gateway/
RUN --mount=type=cache,id=nanochat-pip,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install ./shared ./services/gateway

# Code, compiled here since the running image is read-only.
FROM base AS code
COPY shared/nanochat /app/code/nanochat
COPY services/gateway/nanochat_gateway /app/code/nanochat_gateway
COPY --from=web /src/services/gateway/nanochat_gateway/static /app/code/nanochat_gateway/static
RUN python -m compileall -q /app/code

FROM base
COPY --from=packages /app /app
COPY docker/healthcheck.py /app/
COPY --from=code /app/code /app/code
ENV PATH=/app/bin:$PATH PYTHONPATH=/app/code PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NANOCHAT_HOME=/var/lib/nanochat NANOCHAT_DATA_ROOTS=/data \
    NANOCHAT_GATEWAY_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-I", "/app/healthcheck.py", "http://127.0.0.1:8000/health/live"]
ENTRYPOINT ["python", "-m", "nanochat_gateway"]
ARG NANOCHAT_VERSION=dev
LABEL org.opencontainers.image.title="nanochat gateway" org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=$NANOCHAT_VERSION
