#!/bin/bash
# Installs fibcore as a service of systemd, or upgrades it, from the source that this script lies in:
# `make install`, and deploy/vagrant/provision.sh in the VM.
#
# Run as root, as often as you like: what is already so is left alone, an unchanged source does not
# touch the running appliance, and a build that fails leaves the release in use as it was.
#
#   /opt/fibcore               the release in use: a symbolic link, replaced in one rename
#   /opt/fibcore-releases/ID   a release: .venv, supervisord.conf, var -> /var/lib/fibcore
#   /var/lib/fibcore           the database (0700), which is never touched here
#   /etc/default/fibcore       the settings: fibcore.conf, put there once
#   /usr/local/bin/fibcore     the command, for this installation; supervisorctl, too
#
# Packages that are missing come from Debian; Python's, in the locked versions, from the index that
# pip knows. With the wheels that `make wheels` puts into deploy/systemd/wheels/ nothing is compiled and no
# network is needed.
set -euo pipefail
umask 022

source=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
current=/opt/fibcore
releases=/opt/fibcore-releases
wheels=$source/deploy/systemd/wheels
unit=/etc/systemd/system/fibcore.service
work=$(mktemp -d /var/tmp/fibcore-provision.XXXXXX)

say() {
  doing=$*
  printf 'fibcore: %s\n' "$*"
}

finish() {
  local status=$?
  if [ -e "$work/swap" ]; then swapoff "$work/swap" || true; fi
  rm -rf "$work"
  [ $status = 0 ] && return
  printf 'fibcore: installing failed at "%s".\n' "$doing"
  printf 'fibcore: The database is untouched, and the release in use is %s.\n' \
    "$(basename "$(readlink "$current" || echo none)")"
  printf 'fibcore: It is safe to run it again.\n'
} >&2
trap finish EXIT

has_wheels() { compgen -G "$wheels/fibcore-*.whl" >/dev/null; }

# A release is named after the bytes that it is made from.
release_id() {
  (cd "$source" && find pyproject.toml setup.py requirements/run.txt supervisord.conf fibcore web \
      supervise deploy -type f ! -name '*.py[co]' ! -name '*.so' ! -name '*.c' -print0 \
      | sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-12
}

install_packages() {
  command -v dpkg-query >/dev/null || return 0  # Of what is missing elsewhere, the first use says so.
  local wanted=(python3 python3-pip sudo) missing=() package
  has_wheels || wanted+=(gcc libc6-dev python3-dev)
  for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] \
      || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update
  "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"
}

# The compiler and the running appliance together may want more than 512 MB for a moment.
add_swap_for_the_compiler() {
  fallocate -l 512M "$work/swap"
  chmod 600 "$work/swap"
  mkswap --quiet "$work/swap"
  swapon "$work/swap"
}

build_release() {  # $1: the folder of the release
  rm -rf "$1"
  mkdir -p "$1"
  cp "$source/supervisord.conf" "$1/"
  ln -s /var/lib/fibcore "$1/var"
  # Debian's pip installs into it from outside: the appliance carries no installer of its own.
  python3 -m venv --without-pip "$1/.venv"
  local pip=(python3 -m pip --python "$1/.venv/bin/python" --quiet --disable-pip-version-check
    install --no-cache-dir)
  if has_wheels; then
    say "installing release $(basename "$1") from the prepared wheels"
    "${pip[@]}" --no-index --find-links "$wheels" fibcore
  else
    say "building release $(basename "$1") from source, which compiles the core"
    add_swap_for_the_compiler
    mkdir "$work/source"
    (cd "$source" && cp -r pyproject.toml setup.py README.md LICENSE fibcore web supervise \
      "$work/source/")
    "${pip[@]}" --require-hashes -r "$source/requirements/run.txt"
    "${pip[@]}" --no-deps --no-build-isolation "$work/source"
  fi
  # One that does not even start is not gone over to.
  "$1/.venv/bin/python" -c 'import supervise.backup, supervise.watchdog, web.server'
  touch "$1/complete"
}

install_command() {  # $1: its name
  if [ -e "/usr/bin/$1" ]; then
    say "there is another $1 in /usr/bin: ours is sudo -u fibcore $current/.venv/bin/$1"
    return
  fi
  install -m 755 "$source/deploy/systemd/command" "/usr/local/bin/$1"
}

# Of all that a running supervisord has read once and for ever, one line: supervise/extension.py and
# what that imports are in it.
supervision() {
  (cd "$current" && cat supervisord.conf "$unit" $(compgen -G "$unit.d/*.conf") \
      $(compgen -G ".venv/lib/python3*/site-packages/supervise/[el]*.py") \
      $(compgen -G ".venv/lib/python3*/site-packages/fibcore/appliance/heartbeat.py") \
    && echo .venv/lib/python3*/site-packages/supervisor-*.dist-info) | sha256sum | cut -c1-12
}

install_packages

if ! id -u fibcore >/dev/null 2>&1; then
  say "adding the user fibcore"
  useradd --system --home-dir /var/lib/fibcore --no-create-home --shell /usr/sbin/nologin fibcore
fi

release=$releases/$(release_id)
[ -e "$release/complete" ] || build_release "$release"
ln -sfn "$release" "$releases/next"
mv -T "$releases/next" "$current"

install -m 644 "$source/deploy/systemd/fibcore.service" "$unit"
systemctl daemon-reload
systemctl --quiet enable fibcore
[ -e /etc/default/fibcore ] || install -m 644 "$source/fibcore.conf" /etc/default/fibcore
install_command supervisorctl
install_command fibcore

# What runs is compared with what ran at the end of the last run of this script, not with the link: one
# that failed half-way is then completed by the next.
now="$(basename "$release") $(supervision)"
last=$(cat "$releases/applied" 2>/dev/null || true)
if ! systemctl --quiet is-active fibcore; then
  say "starting release ${now% *}"
  systemctl restart fibcore
elif [ "$now" = "$last" ]; then
  say "release ${now% *} runs already"
elif [ "${now#* }" != "${last#* }" ]; then
  say "restarting all of it, as the supervision has changed"
  systemctl restart fibcore
else
  say "going over to release ${now% *}, one process after the other"
  systemctl reload fibcore
fi

say "waiting for it to be healthy"
python3 "$source/deploy/systemd/wait_until_healthy.py" \
  || { journalctl --no-pager -u fibcore -n 9; tail /var/lib/fibcore/log/*; exit 1; }

echo "$now" >"$releases/applied"
find "$releases" -mindepth 1 -maxdepth 1 -type d ! -path "$release" -exec rm -rf {} +
sudo -n -u fibcore -- "$current/.venv/bin/supervisorctl" -c "$current/supervisord.conf" status || true
say "ready"
