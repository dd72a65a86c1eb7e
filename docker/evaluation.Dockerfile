# The evaluation job: scores a running service against reference statistics. No torch, which is needed only to build
# an extractor: use the trainer's image for that.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /app
# dependencies before code: without packages next to it, only the project's metadata is installed, which names a README
COPY LICENSE constraints.txt pyproject.toml ./
RUN touch README.md \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --constraint constraints.txt '.[eval]' "${ONNXRUNTIME}" \
    && rm -rf build *.egg-info
COPY artifacts artifacts
COPY imagesets imagesets
COPY evaluation evaluation
# the client and what it imports; the rest of the package needs dependencies that this image lacks
COPY service/__init__.py service/
COPY service/client service/client
RUN chmod -R a+rX /app && PYTHONPATH=/app /opt/venv/bin/python -m compileall -q /app \
    && mkdir /volumes && cd /volumes && mkdir cache extractors reference reports && chown 10001:10001 *

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# a new named volume gets its owner from this folder
COPY --from=build /volumes /
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    HOME=/tmp \
    ATELIER_CACHE=/cache
# reference/ and extractors/, the command's defaults, are /reference and /extractors
WORKDIR /
USER 10001:10001
# as a container's first process Python ignores SIGTERM; with SIGINT it prints how to resume
STOPSIGNAL SIGINT
# a job is healthy while it runs; its exit code reports the result
HEALTHCHECK NONE
ENTRYPOINT ["evaluation"]
CMD ["--help"]
# last, because they change with every commit
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gan-atelier/evaluation" \
      org.opencontainers.image.description="Scores a generator or a running service against real images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
