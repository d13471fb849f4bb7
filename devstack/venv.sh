# Finds a Python that is new enough and makes a virtual environment of it. Sourced by run_tests.sh and stack.sh.
# shellcheck shell=bash

# Prints the path of a Python >= 3.11 that can make virtual environments; the system's own is preferred.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        command -v "$candidate" > /dev/null || continue
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || continue
        command -v "$candidate"
        return 0
    done
    return 1
}

# Installs Debian's packages, by root or by a user whom sudo serves; fails where neither is so.
install_debian() {
    local root=()
    command -v apt-get > /dev/null || return 1
    [ "$(id -u)" = 0 ] || root=(sudo)
    command -v "${root[0]:-apt-get}" > /dev/null || return 1
    echo "apt-get install $*"
    { "${root[@]}" apt-get update -q && "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } > /dev/null
}

# Installs OpenLDAP's server, which the tests of LDAP start by themselves. Without a configuration Debian doesn't start it.
install_slapd() {
    local root=()
    [ ! -x /usr/sbin/slapd ] || return 0
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    "${root[@]}" debconf-set-selections <<< 'slapd slapd/no_configuration boolean true' 2> /dev/null && install_debian slapd
}

# make_venv FOLDER: an empty virtual environment; one that is there and whose Python still starts is kept.
make_venv() {
    local python
    if ! "$1/bin/python" -c '' 2> /dev/null; then
        find_python > /dev/null || install_debian python3-venv || true
        python=$(find_python) || {
            echo 'No Python >= 3.11 with venv and ensurepip was found. On Debian, by root: apt-get install python3-venv' >&2
            return 1
        }
        rm -rf "$1"
        "$python" -m venv "$1"
    fi
}
