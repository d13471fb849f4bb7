#!/usr/bin/env bash
# unstack.sh, and then removes data, configuration, logs, users and the virtual environment: all but Debian packages and
# the built guest image.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$HERE/unstack.sh"
TOP=$(dirname "$HERE")
export PATH=$PATH:/usr/sbin:/sbin
. "$HERE/functions"
for part in common supervisor rabbitmq database libvirt services $ALL_SERVICES register; do . "$HERE/lib/$part"; done
need_root
load_settings
step 'credentials: remove from clouds.yaml' remove_credentials
step 'systemd units or supervisor programs: remove' remove_processes
step 'libvirt: restore its settings' clean_libvirt
step 'identity: give its second port back' clean_identity
step 'names of this host: as they were' forget_own_names
step 'network: remove kernel settings and privileges' clean_network
step 'data, configuration, code: remove' as_root rm -rf "$DATA" "$ETC" "$OPT"
step 'users: remove' remove_users
as_root rm -rf "$LOGS"
say 'clean'
