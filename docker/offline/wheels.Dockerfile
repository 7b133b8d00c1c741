# Nothing but wheels: the Dockerfiles' WHEELS_IMAGE.
FROM scratch
COPY *.whl /
