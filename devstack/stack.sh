#!/usr/bin/env bash
# Installs, configures, migrates, starts and registers a whole cloud on this machine, and launches a first server in it.
# By root, or by a user with sudo. May be run again at any time: what is as it should be stays untouched.
# Settings come from local.conf (see local.conf.sample). README.rst in this folder says more.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(dirname "$HERE")
export PATH=$PATH:/usr/sbin:/sbin
. "$HERE/functions"
for part in common supervisor rabbitmq database libvirt services $ALL_SERVICES register; do . "$HERE/lib/$part"; done

WORK=$(mktemp -d)
# A step that fails leaves those that run beside it without purpose.
trap 'status=$?; for pid in "${BACKGROUND[@]}"; do kill "$pid" 2> /dev/null || true; done; rm -rf "$WORK"; exit $status' EXIT

need_root
load_settings
as_root install -d -m 755 "$LOGS"
as_root install -d -m 755 -o "$(id -u)" -g "$(id -g)" "$STACK_LOGS"
as_root install -d -m 755 "$ETC"
load_secrets

mapfile -t missing < <(missing_packages $(wanted_programs))
[ ${#missing[@]} -eq 0 ] || step "packages: install ${#missing[@]} with apt" install_packages "${missing[@]}"
find_host_ip
say "settings: host $HOST_IP, database $DATABASE_TYPE, hypervisor $HYPERVISOR, services$(printf ' %s' $ENABLED), logs in $STACK_LOGS"
step 'names of this host' resolve_own_names
step 'users and folders' make_users
export KODIAK_CACHE=${KODIAK_CACHE:-$HOME/.cache/kodiak}
if is_enabled compute; then begin guest 'guest image: build' "$HERE/build-guest.sh"; fi
step 'virtual environment: third-party libraries' install_third_party
step 'supervisor: start' start_supervisor
if is_enabled rabbitmq; then begin rabbitmq 'rabbitmq: start and log in' start_rabbitmq; fi
if [ "$VIRT_DRIVER" = libvirt ] && is_enabled compute; then begin libvirt 'libvirt: start' start_libvirt; fi
step 'virtual environment: Kodiak itself' install_distributions
[ "$DATABASE_TYPE" = sqlite ] || step "database: start $DATABASE_TYPE" start_database
if is_enabled network; then
    step 'network: kernel settings and privileges' prepare_kernel
    step "network: public bridge $PUBLIC_BRIDGE" make_public_bridge
fi
for service in $ALL_SERVICES; do
    is_enabled $service || continue
    step "$service: configure" configure_$service
    ! has_database $service || step "$service: migrate database" migrate $service
done
finish rabbitmq
if is_enabled identity; then
    step 'identity: bootstrap' bootstrap_identity
    step 'identity: start' start_identity
fi
step 'register: roles, service users, catalog, demo project' register cloud
finish libvirt
for service in $ALL_SERVICES; do
    [ $service = identity ] || ! is_enabled $service || step "$service: start" start_$service
done
finish guest
step 'register: flavors, images, networks' register resources
step 'credentials: openrc and clouds.yaml' write_credentials
if [ "$FIRST_SERVER" = True ] && is_enabled compute && is_enabled network && is_enabled image; then
    step 'first server: launch, floating IP, SSH' register server
    cat "$(log_of 'first server: launch, floating IP, SSH')"
fi
summary
