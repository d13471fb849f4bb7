#!/usr/bin/env bash
# Stops all that stack.sh started, and takes its guests, namespaces, bridges and firewall rules away. Data stays: stack.sh
# brings the same cloud up again.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(dirname "$HERE")
export PATH=$PATH:/usr/sbin:/sbin
. "$HERE/functions"
for part in common supervisor rabbitmq database libvirt services $ALL_SERVICES register; do . "$HERE/lib/$part"; done
trap 'rm -rf "${WORK:-}"' EXIT

need_root
as_root install -d -m 755 "$LOGS"
as_root install -d -m 755 -o "$(id -u)" -g "$(id -g)" "$STACK_LOGS"
load_settings
# Guests end before what their disks and networks are made of.
step 'compute: stop' stop_compute
step 'guests: stop' stop_libvirt
for service in storage-block storage-object network image identity; do step "$service: stop" stop_$service; done
step 'network: take away what is left on the host' remove_host_network
step 'rabbitmq: stop' stop_rabbitmq
step 'database: stop' stop_database
step 'supervisor: stop' stop_supervisor
step 'run files: remove' as_root rm -rf "$RUN"
say 'stopped; the data is in /var/lib/kodiak (clean.sh removes it)'
