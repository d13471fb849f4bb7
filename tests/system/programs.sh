#!/usr/bin/env bash
# Installs other people's programs that only the system tests use; a test whose program is not there is skipped and says so.
# Each stock service gets a virtual environment of its own below FOLDER, since its libraries need not be ours.
#
#   tests/system/programs.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?where to}")
. "$(dirname "${BASH_SOURCE[0]}")/../../devstack/venv.sh"

# An OpenID provider. Debian would ask for a database of its own; the tests give it one of theirs.
install_glewlwyd() {
    local root=()
    ! command -v glewlwyd > /dev/null || return 0
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    "${root[@]}" debconf-set-selections <<< 'glewlwyd glewlwyd/config_type select No configuration' 2> /dev/null &&
        install_debian glewlwyd dbconfig-no-thanks
}

# stock NAME PACKAGE...
stock() {
    local venv=$folder/$1
    shift
    [ ! -f "$venv/.done" ] || return 0
    make_venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" > "$venv/install.log" 2>&1 && touch "$venv/.done"
}

install_glewlwyd || echo 'no OpenID provider (Debian package glewlwyd)'
stock glance glance || echo "no stock Glance, see $folder/glance/install.log"
stock swift swift keystonemiddleware || echo "no stock Swift, see $folder/swift/install.log"
