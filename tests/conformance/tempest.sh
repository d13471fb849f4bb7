#!/usr/bin/env bash
# Runs Tempest (the newest release from PyPI, unmodified) against the running cloud of devstack/stack.sh.
#
#   tests/conformance/tempest.sh                      everything
#   tests/conformance/tempest.sh -l FILE              the tests that an include list names
#   tests/conformance/tempest.sh REGEX...             the tests that match one of the expressions
#
# TEMPEST_WORK        where its virtual environment and workspace go (default: .tempest in the top folder)
# TEMPEST_JOBS        tests at the same time (default 2)
# TEMPEST_VERSION     a version other than the newest
# TEMPEST_IMAGE_FORMATS  1: images of every format instead of the tests that upload random bytes as any (tempest_conf.py)
# TEMPEST_COMPLIANCE  1: the cloud was set up with IDENTITY_FEATURES=compliance (lockout, old passwords)
# TEMPEST_PLUGINS     plugins to install beside it (keystone-tempest-plugin ...)
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${TEMPEST_WORK:-$top/.tempest}
jobs=${TEMPEST_JOBS:-2}
. "$top/devstack/venv.sh"

selection=()
while getopts 'l:h' option; do
    case $option in
        l) selection=(--include-list "$(realpath "$OPTARG")") ;;
        *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ $# -gt 0 ]; then selection=(--regex "$(IFS='|'; echo "$*")"); fi

mkdir -p "$work"
make_venv "$work/venv"
if [ ! -x "$work/venv/bin/tempest" ] || [ -n "${TEMPEST_VERSION:-}" ]; then
    echo "installing tempest${TEMPEST_VERSION:+ $TEMPEST_VERSION}"
    "$work/venv/bin/pip" install -q --disable-pip-version-check "tempest${TEMPEST_VERSION:+==$TEMPEST_VERSION}" openstacksdk \
        > "$work/install.log" 2>&1 || { tail -n 5 "$work/install.log"; exit 1; }
fi
# shellcheck disable=SC2086
[ -z "${TEMPEST_PLUGINS:-}" ] || "$work/venv/bin/pip" install -q --disable-pip-version-check $TEMPEST_PLUGINS lxml > "$work/install.log" 2>&1 ||
    { tail -n 5 "$work/install.log"; exit 1; }
"$work/venv/bin/tempest" --version
# Its list of workspaces is kept here too, so that none made elsewhere under this name is in the way.
[ -d "$work/cloud" ] || "$work/venv/bin/tempest" init --workspace-path "$work/workspaces.yaml" "$work/cloud" > "$work/init.log" 2>&1 ||
    { tail -n 5 "$work/init.log"; exit 1; }
"$work/venv/bin/python" "$top/tests/conformance/tempest_conf.py" "$work/cloud/etc/tempest.conf"
cd "$work/cloud"
pages=$(sed -n 's!^http_image = http://\(.*\):8889/usable.raw$!\1!p' etc/tempest.conf)
if [ -n "$pages" ] && [ -d samples ]; then
    "$work/venv/bin/python" -m http.server 8889 --bind "$pages" --directory samples > pages.log 2>&1 &
    trap "kill $! 2> /dev/null || true" EXIT
fi
status=0
"$work/venv/bin/tempest" run --concurrency "$jobs" "${selection[@]}" || status=$?
"$work/venv/bin/stestr" last --subunit > "$work/last.subunit" 2> /dev/null || true
exit $status
