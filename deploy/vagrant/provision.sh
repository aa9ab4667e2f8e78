#!/bin/sh
# Provisions the VM: `make install`, and the settings of deploy/vagrant/vm.conf.
set -eu
cd "$(dirname "$0")/../.."

export DEBIAN_FRONTEND=noninteractive
apt="apt-get --quiet --yes --no-install-recommends"
# A package that the host has built from this source is installed as it is.
if ! make --question deb 2>/dev/null; then
    $apt update
    $apt install make dpkg-dev debhelper gcc libc6-dev python3-argparse-manpage python3-dev python3-venv
fi
install -D -m 644 deploy/vagrant/vm.conf /etc/systemd/system/fibcore.service.d/vm.conf
make install
