# The evaluation job: scores a running service against reference statistics. No torch: that is needed only to build
# an extractor, which the trainer's image can.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /app
# dependencies before code: without packages beside it, the project installs as its metadata alone, which names a README
COPY LICENSE constraints.txt pyproject.toml ./
RUN touch README.md \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --constraint constraints.txt '.[eval]' "${ONNXRUNTIME}" \
    && rm -rf build *.egg-info
COPY artifacts artifacts
COPY imagesets imagesets
COPY evaluation evaluation
# the client, and what it imports; the rest of the room needs packages that are not here
COPY service/__init__.py service/
COPY service/client service/client
RUN chmod -R a+rX /app && PYTHONPATH=/app /opt/venv/bin/python -m compileall -q /app \
    && mkdir /volumes && cd /volumes && mkdir cache extractors reference reports && chown 10001:10001 *

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# a new named volume takes its owner from here
COPY --from=build /volumes /
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    HOME=/tmp \
    ATELIER_CACHE=/cache
# reference/ and extractors/, where the command looks by itself, are /reference and /extractors
WORKDIR /
USER 10001:10001
# Python, as a container's first process, is deaf to SIGTERM; by this it says how to go on
STOPSIGNAL SIGINT
# a job is healthy while it runs; the rest its exit code says
HEALTHCHECK NONE
ENTRYPOINT ["evaluation"]
CMD ["--help"]
# last, for they change with every commit
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gan-atelier/evaluation" \
      org.opencontainers.image.description="Scores a generator or a running service against real images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
