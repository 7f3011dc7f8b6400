#!/bin/sh
# Make the virtual environment this tree works in: venv.sh PYTHON FOLDER
set -eu
python=$1 folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "sessile needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Name another: make PYTHON=python3.12" >&2
    exit 1
}

# Debian's python3 comes without ensurepip; its own package has it.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ]; then become=
    elif sudo -n true 2>/dev/null; then become="sudo -n"
    else
        echo "Python's venv module is missing. Install it with: sudo apt-get install $package" >&2
        exit 1
    fi
    echo "installing $package"
    $become apt-get update -qq
    $become env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >/dev/null
fi

which='import sys; print(sys.base_prefix, sys.version)'
if [ "$("$folder/bin/python" -c "$which" 2>/dev/null)" != "$("$python" -c "$which")" ]; then
    "$python" -m venv --clear "$folder"
fi
echo "installing the locked dependencies into $folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
