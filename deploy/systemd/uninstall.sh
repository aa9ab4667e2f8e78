#!/bin/bash
# Takes away what install.sh has installed: `make uninstall`, as root. The database stays, and so do
# the settings and the user that owns them: what is installed again goes on from there.
set -euo pipefail

systemctl --quiet disable --now fibcore 2>/dev/null || true
rm -rf /etc/systemd/system/fibcore.service /etc/systemd/system/fibcore.service.d
systemctl daemon-reload
for name in fibcore supervisorctl; do
  if grep -qs /opt/fibcore "/usr/local/bin/$name"; then rm "/usr/local/bin/$name"; fi
done
rm -rf /opt/fibcore /opt/fibcore-releases

echo "fibcore: uninstalled. The database in /var/lib/fibcore and the settings in"
echo "fibcore: /etc/default/fibcore are left. To remove these, too, for good, with the index that"
echo "fibcore: they stand at: rm -r /var/lib/fibcore /etc/default/fibcore && userdel fibcore"
