#!/bin/sh
# A folder that is mounted at /models has been named by mounting it: empty, it is no reason to serve the bundled digits.
if [ -z "${ATELIER_MODEL_DIR:-}${MODEL_DIR:-}" ] && [ -e /models ]; then
    export ATELIER_MODEL_DIR=/models
fi
# The container's own network decides who reaches this address; another --host after it replaces it.
exec python -m service serve --host 0.0.0.0 "$@"
