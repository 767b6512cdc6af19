#!/usr/bin/env bash
# All set-up, idempotent: setup/setup.sh service | demo | dev | deep
#
#   service  Debian packages to build libvirt-python, and .venv from requirements.lock
#   demo     the same, and a libvirt with QEMU (no service of which is started), its user, and a kernel for the guests
#   dev      the same, and what the tests need: requirements-dev.lock, a browser, an SSH server (which is not started)
#   deep     the same, and what the long tests need: requirements-deep.lock, the guests' kernel with its symbols (600 MB)
#
# With nothing to do it only looks: at dpkg's list, at one stamp, at three files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=setup/packages.sh
source setup/packages.sh

readonly LEVEL="${1:-service}"
readonly VENV=".venv"
readonly DEMO_USER="memdump-demo"
readonly KERNEL="var/demo/vmlinuz"
readonly SSHD_TREE="var/tests/openssh"
readonly PROVIDER_TREE="var/tests/provider"

say() { printf 'set-up: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    fail "root is needed for: $*. Become root, or install sudo."
  fi
}

is_for_tests() { [[ "$LEVEL" == dev || "$LEVEL" == deep ]]; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

# The first Python that will do; nothing if there is none. The system's own is built with optimisations; the first in PATH
# may not be, and would take up to twice the time for everything.
find_python() {
  local name
  for name in "${PYTHON:-/usr/bin/python3}" python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" > /dev/null && is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
}

# The given Debian packages that are not installed.
missing_of() {
  local installed name
  installed="$(dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' "$@" 2> /dev/null || true)"
  for name in "$@"; do
    grep --quiet --line-regexp --fixed-strings "$name installed" <<< "$installed" || printf '%s\n' "$name"
  done
}

install_packages() {
  local missing
  if ! command -v apt-get > /dev/null; then
    say "this system has no apt. Install what these Debian packages hold, if it is not there yet: $*"
    return
  fi
  mapfile -t missing < <(missing_of "$@")
  if ((${#missing[@]} == 0)); then return; fi
  say "installing ${missing[*]}"
  as_root apt-get update --quiet --quiet || say "apt-get update failed; going on with the lists that are there"
  if [[ " ${missing[*]} " == *" $BROWSER_PACKAGE "* ]] && ! apt-cache show "$BROWSER_PACKAGE" > /dev/null 2>&1; then
    fail "this system has no package $BROWSER_PACKAGE. Install Chromium or Chrome, and name it: make test CHROMIUM=/path/to/it"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}" > /dev/null
}

wanted_packages() {
  local packages=("${SERVICE_PACKAGES[@]}") python
  python="$(find_python)"
  if [[ -z "$python" || "$(readlink --canonicalize "$python")" == /usr/bin/* ]]; then packages+=("${PYTHON_PACKAGES[@]}"); fi
  if [[ "$LEVEL" != service ]]; then packages+=("${DEMO_PACKAGES[@]}"); fi
  if is_for_tests; then
    packages+=("${DEV_PACKAGES[@]}")
    [[ -n "${CHROMIUM:-}" ]] || packages+=("$BROWSER_PACKAGE")
    command -v npm > /dev/null || packages+=(npm) # Debian's, which is some 300 packages, only where there is no other
  fi
  printf '%s\n' "${packages[@]}"
}

# What the virtual environment was made from: Python's version and the lock file(s).
fingerprint() {
  { "$1" --version && cat requirements.lock "${@:2}"; } | sha256sum | cut --delimiter=' ' --fields=1
}

make_environment() {
  local python lock stamp wanted
  python="$(find_python)"
  [[ -n "$python" ]] || fail "Python 3.11 or newer is needed, and there is none here. Name one: make PYTHON=/path/to/python3.11"
  if is_for_tests; then lock=requirements-dev.lock; else lock=requirements.lock; fi
  stamp="$VENV/made-from-$lock"
  wanted="$(fingerprint "$python" "$lock")"
  if "$VENV/bin/python" --version > /dev/null 2>&1 && [[ "$(cat "$stamp" 2> /dev/null)" == "$wanted" ]]; then return; fi
  if [[ "$("$VENV/bin/python" --version 2> /dev/null)" != "$("$python" --version)" ]]; then
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
  fi
  say "installing $lock"
  "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes --requirement "$lock"
  printf '%s\n' "$wanted" > "$stamp"
}

prepare_demo() {
  if ((EUID == 0)) && ! id "$DEMO_USER" > /dev/null 2>&1; then
    say "adding the system user $DEMO_USER, under whom the demo's libvirt runs"
    useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$DEMO_USER"
  fi
  if [[ ! -s "$KERNEL" ]]; then
    say "fetching a kernel for the demo guests"
    "$VENV/bin/python" -m demo --fetch
  fi
}

# Unpacked, not installed: nobody who runs tests wants a server that starts with the machine.
fetch_sshd() {
  local folder
  mkdir --parents "$(dirname "$SSHD_TREE")"
  folder="$(mktemp --directory "$(dirname "$SSHD_TREE")/.fetch-XXXXXX")"
  (cd "$folder" && apt-get download --quiet --quiet -o APT::Sandbox::User=root "$SSHD_PACKAGE" && dpkg --extract ./*.deb tree)
  mv "$folder/tree" "$SSHD_TREE"
  rm --recursive "$folder"
}

# The OpenID provider that tests log in at. Node.js itself comes with Playwright; without npm those tests are skipped.
fetch_provider() {
  local lock=tests/provider/package-lock.json
  if cmp --silent "$lock" "$PROVIDER_TREE/package-lock.json" && [[ -d "$PROVIDER_TREE/node_modules" ]]; then return; fi
  say "fetching an OpenID provider for the tests"
  mkdir --parents "$PROVIDER_TREE"
  cp tests/provider/package.json "$PROVIDER_TREE/"
  cp "$lock" "$PROVIDER_TREE/"
  (cd "$PROVIDER_TREE" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --silent > /dev/null) || rm --recursive "$PROVIDER_TREE"
}

prepare_tests() {
  if command -v npm > /dev/null; then fetch_provider; fi
  if [[ ! -x /usr/sbin/sshd && ! -x "$SSHD_TREE/usr/sbin/sshd" ]] && command -v apt-get > /dev/null; then
    say "fetching an SSH server for the tests"
    fetch_sshd
  fi
  if ((EUID == 0)) && ! id sshd > /dev/null 2>&1; then
    say "adding the system user sshd, whom an SSH server run by root needs"
    useradd --system --no-create-home --home-dir /run/sshd --shell /usr/sbin/nologin sshd
  fi
}

# Beside what requirements-dev.lock brings: drgn, which needs no other package.
prepare_deep() {
  local lock=requirements-deep.lock stamp wanted
  stamp="$VENV/made-from-$lock"
  wanted="$(fingerprint "$VENV/bin/python" requirements-dev.lock "$lock")"
  if [[ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]]; then
    say "installing $lock"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes --requirement "$lock"
    printf '%s\n' "$wanted" > "$stamp"
  fi
  "$VENV/bin/python" -c 'from demo.kernel import debug_kernel; debug_kernel()'
}

main() {
  local packages
  case "$LEVEL" in service | demo | dev | deep) ;; *) fail "usage: setup/setup.sh service | demo | dev | deep" ;; esac
  mapfile -t packages < <(wanted_packages)
  install_packages "${packages[@]}"
  make_environment
  if [[ "$LEVEL" != service ]]; then prepare_demo; fi
  if is_for_tests; then prepare_tests; fi
  if [[ "$LEVEL" == deep ]]; then prepare_deep; fi
}

main
