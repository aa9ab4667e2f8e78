#!/bin/bash
# Provisions the VM: what deploy/systemd/install.sh does anywhere, on all interfaces, as the forwarded port
# arrives at the VM's network address and not at its loopback.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
install -D -m 644 "$here/vm.conf" /etc/systemd/system/fibcore.service.d/vm.conf
exec bash "$here/../systemd/install.sh"
