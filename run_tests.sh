#!/usr/bin/env bash
# Lint, import rules, and the unit and functional tests of every distribution. Needs no root, no network
# once its virtual environment is built, and no running service.
#
#   ./run_tests.sh                     all of it
#   ./run_tests.sh image               one distribution's tests (lint as ever)
#   ./run_tests.sh -- -k keypair -x    what follows -- goes to pytest
#
# KODIAK_VENV   use this virtual environment as it is (nothing is installed into it)
# KODIAK_JOBS   test processes (default 2)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }
started=$SECONDS
say() { printf '[%4ds] %s\n' $((SECONDS - started)) "$*"; }

pip_install() {
    "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt "$@" >> "$venv/install.log" 2>&1 || {
        grep -v '^WARNING: Location' "$venv/install.log" | tail -n 20
        say "FAILED: pip install, see $venv/install.log"
        exit 1
    }
}

only=()
args=()
while [ $# -gt 0 ]; do
    case $1 in
        -h|--help) usage; exit 0 ;;
        --) shift; args=("$@"); break ;;
        -*) usage >&2; exit 2 ;;
        *) only+=("$1"); shift ;;
    esac
done

distributions=()
for f in */pyproject.toml; do distributions+=("${f%/pyproject.toml}"); done

# shellcheck source=devstack/venv.sh
. devstack/venv.sh

if [ -n "${KODIAK_VENV:-}" ]; then
    venv=$KODIAK_VENV
    for d in "${distributions[@]}"; do PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$PWD/$d; done
    export PYTHONPATH
else
    venv=$PWD/.venv
    stamp="$(cat constraints.txt test-requirements.txt ./*/pyproject.toml | sha256sum) $PWD"
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
        say "virtual environment: .venv"
        make_venv "$venv"
        install_slapd || say "no OpenLDAP here (Debian package slapd): its tests are skipped"
        { command -v xmlsec1 && command -v qemu-io && command -v lhasa; } > /dev/null || install_debian xmlsec1 qemu-utils lhasa ||
            say "no xmlsec1, qemu-img or lhasa here (Debian packages xmlsec1, qemu-utils, lhasa): tests of SAML, volumes and images" \
                "are skipped"
        command -v rclone > /dev/null || install_debian rclone ||
            say "no rclone here (Debian package rclone): the system test of object storage that needs it is skipped"
        say "virtual environment: third-party libraries"
        editable=()
        for d in "${distributions[@]}"; do editable+=(-e "./$d"); done
        pip_install setuptools
        # "compat" puts plain paths on sys.path, as a namespace package needs it to be found by Flask and others.
        pip_install --no-build-isolation --config-settings editable_mode=compat -r test-requirements.txt "${editable[@]}"
        echo "$stamp" > "$venv/.stamp"
    fi
fi
bin=$venv/bin
failed=()

say "lint: ruff"
"$bin/python" -m ruff check --quiet . || failed+=(ruff)

say "lint: who may import whom"
"$bin/lint-imports" --no-logo > .import-rules.log 2>&1 || { cat .import-rules.log; failed+=(import-linter); }
rm -f .import-rules.log

folders=()
# What is under tests/system needs more than a virtual environment: libvirt, a kernel of its own, root.
[ ${#only[@]} -gt 0 ] || only=("${distributions[@]}" .)
for d in "${only[@]}"; do
    for kind in unit functional; do [ -d "$d/tests/$kind" ] && folders+=("$d/tests/$kind"); done
done
if [ ${#folders[@]} -gt 0 ]; then
    say "tests: ${folders[*]}"
    status=0
    "$bin/python" -m pytest -q -n "${KODIAK_JOBS:-2}" --dist=loadfile "${args[@]}" "${folders[@]}" || status=$?
    [ $status -eq 0 ] || failed+=("pytest (exit code $status)")
fi

if [ ${#failed[@]} -gt 0 ]; then
    say "FAILED: ${failed[*]}"
    exit 1
fi
say "all passed"
