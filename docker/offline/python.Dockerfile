# Stands in for python:3.11-slim-bookworm: Debian's Python under the name that the other one has.
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/debconf/*-old \
    && ln -s /usr/bin/python3 /usr/local/bin/python
CMD ["python3"]
