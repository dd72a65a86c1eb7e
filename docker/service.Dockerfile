# The service. ONNXRUNTIME="onnxruntime-gpu[cuda,cudnn]" makes the GPU variant; neither contains torch.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
# pip stays in this stage; the service does not need it
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /app
# dependencies before code: without packages next to it, only the project's metadata is installed, which names a README
COPY LICENSE constraints.txt pyproject.toml ./
RUN touch README.md \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --constraint constraints.txt '.[serve]' "${ONNXRUNTIME}" \
    && rm -rf build *.egg-info
COPY artifacts artifacts
COPY service service
COPY docker/service-entry.sh /opt/venv/bin/service-entry
# readable whatever the checkout's umask; compiled, because a read-only file system keeps no bytecode
RUN chmod -R a+rX /app && chmod 0755 /opt/venv/bin/service-entry && uname -m > /opt/venv/machine \
    && PYTHONPATH=/app /opt/venv/bin/python -m compileall -q /app

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app/artifacts /app/artifacts
COPY --from=build /app/service /app/service
# everything is written below /tmp, so that the root file system can be read-only
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    HOME=/tmp \
    BENTOML_HOME=/tmp/bentoml \
    BENTOML_DO_NOT_TRACK=true \
    PORT=3000
# ./models is /models
WORKDIR /
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "service.healthcheck"]
ENTRYPOINT ["service-entry"]
# last, because they change with every commit
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gan-atelier/service" \
      org.opencontainers.image.description="Images from trained generators over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
