#!/bin/sh
# Makes .venv from uv.lock with a Python that Headwater knows, and .env from .env.example when there is none.
# Does nothing when .venv is already in step with uv.lock and pyproject.toml. POSIX sh; works with an empty environment.
#   UV_VERSION  the uv that is installed into .venv (the Makefile pins it)
#   PYTHON      an interpreter to use before any that is found on PATH
set -eu
cd "$(dirname "$0")/.."
: "${UV_VERSION:?run \`make setup\`, which pins it}"
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH CONDA_PREFIX
venv=.venv
stamp=$venv/.headwater-setup
needed_kb=2500000

die() { # every line is one argument; never more than six
    for line in "$@"; do printf '%s\n' "$line" >&2; done
    exit 3
}

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
        if is_supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    if command -v python3 >/dev/null 2>&1; then
        found="the python3 on PATH is $(python3 -c 'import platform; print(platform.python_version())' 2>&1 | tail -1)"
    else
        found="there is no python3 on PATH"
    fi
    die "set-up: Python 3.11, 3.12 or 3.13 is needed; $found." \
        "Install one (Debian/Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python@3.12)" \
        "and run make again, or name it: make setup PYTHON=/path/to/python3.12"
}

[ -e .env ] || [ ! -e .env.example ] || (umask 077 && cp .env.example .env && echo "set-up: wrote .env from .env.example")

# a venv's scripts carry its absolute path: after a move they would run the packages of the old place
is_whole() {
    is_supported $venv/bin/python && head -n 2 $venv/bin/pip 2>/dev/null | grep -qF "$(pwd)/$venv/bin/python"
}

wanted="$(pwd) uv $UV_VERSION $(cat uv.lock pyproject.toml | cksum)"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && is_whole; then
    exit 0
fi

free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ ! -e "$stamp" ] && [ "$free_kb" -lt $needed_kb ]; then
    printf '%s\n' "set-up: $((free_kb / 1024)) MB free in $(pwd); the packages need $((needed_kb / 1024)) MB." \
        "Free some space, or clone to a larger disk." >&2
    exit 9
fi

if ! is_whole; then
    python=$(find_python)
    echo "set-up: making $venv with $python"
    rm -rf $venv
    "$python" -m venv $venv || die "set-up: $python cannot make a virtual environment." \
        "On Debian and Ubuntu install its venv package: apt install python3-venv. Then run make again."
fi
if [ "$($venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    echo "set-up: installing uv $UV_VERSION"
    $venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "uv==$UV_VERSION" ||
        die "set-up: pip could not install uv $UV_VERSION; its reason stands above." \
            "Check the network, or set the package index of your company in pip's configuration, and run make again."
fi
echo "set-up: installing the packages of uv.lock (the first time on a machine this downloads about 450 MB)"
UV_PROJECT_ENVIRONMENT=$venv UV_PYTHON=$venv/bin/python UV_PYTHON_DOWNLOADS=never \
    $venv/bin/uv sync --frozen --inexact --quiet ||
    die "set-up: uv could not install the packages of uv.lock; its reason stands above." \
        "Check the network and the free disk space, and run make again."
printf '%s' "$wanted" >$stamp
