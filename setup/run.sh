#!/usr/bin/env bash
# Set up what is missing, then serve: over LIBVIRT_URI if it is set; else over the system's libvirt, if that has VMs; else
# over the demo's own libvirt, which ends with the service. `setup/run.sh demo` takes the demo's in any case.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

serve_demo() {
  setup/setup.sh demo
  printf '%s\n' "$1 Starting a private libvirt with small demo VMs; it ends with the service." >&2
  exec .venv/bin/python -m demo -- .venv/bin/python -m app
}

if [[ "${1:-}" == demo ]]; then serve_demo "As you wish:"; fi
setup/setup.sh service
if [[ -n "${LIBVIRT_URI:-}" ]]; then exec .venv/bin/python -m app; fi
if reason="$(timeout 15 .venv/bin/python setup/system_libvirt.py)"; then
  export LIBVIRT_URI=qemu:///system
  exec .venv/bin/python -m app
fi
serve_demo "${reason:-The libvirt of this system does not answer.}"
