#!/bin/sh
# Use the folder mounted at /models, even if it is empty: the bundled digits are only for a container without one.
if [ -z "${ATELIER_MODEL_DIR:-}${MODEL_DIR:-}" ] && [ -e /models ]; then
    export ATELIER_MODEL_DIR=/models
fi
# The container's network decides who can reach this address; a later --host replaces it.
exec python -m service serve --host 0.0.0.0 "$@"
