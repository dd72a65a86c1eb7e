# The trainer. Torch's default wheels contain CUDA and also run without a GPU.
# TORCH="torch==2.13.0+cpu" replaces the version of constraints.txt, for example by the smaller CPU build.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
ARG TORCH=
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /app
# dependencies before code: without packages next to it, only the project's metadata is installed, which names a README
COPY LICENSE constraints.txt pyproject.toml ./
RUN touch README.md \
    && if [ -n "${TORCH}" ]; then sed -i -E '/^(torch|torchvision|triton|cuda-|nvidia-)/d' constraints.txt; fi \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --constraint constraints.txt \
        '.[train,eval]' "${ONNXRUNTIME}" ${TORCH} \
    && rm -rf build *.egg-info
COPY artifacts artifacts
COPY imagesets imagesets
COPY evaluation evaluation
COPY trainer trainer
COPY service/__init__.py service/
COPY service/client service/client
RUN chmod -R a+rX /app && PYTHONPATH=/app /opt/venv/bin/python -m compileall -q /app \
    && mkdir /volumes && cd /volumes && mkdir cache data extractors models reference runs && chown 10001:10001 *

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# a new named volume gets its owner from this folder
COPY --from=build /volumes /
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    HOME=/tmp \
    ATELIER_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# data/, runs/ and models/, the command's defaults, are /data, /runs and /models
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
# a job is healthy while it runs; its exit code reports the result
HEALTHCHECK NONE
ENTRYPOINT ["trainer"]
CMD ["--help"]
# last, because they change with every commit
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gan-atelier/trainer" \
      org.opencontainers.image.description="Trains GANs and exports their generators" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
