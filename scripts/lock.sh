#!/bin/sh
# Pin what the tree is built and tested with: lock.sh BIN
# Hashes, no host names; one file for every supported Python.
set -eu
"$1/python" -m pip install --quiet --disable-pip-version-check uv
"$1/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --extra all --group dev --upgrade --output-file requirements.lock pyproject.toml
