# shellcheck shell=bash disable=SC2034
# Debian packages, by what needs them. Read by setup/setup.sh.

# The service. libvirt-python has no wheel: it is built against the libvirt that is installed.
SERVICE_PACKAGES=(ca-certificates gcc libvirt-dev openssh-client pkg-config)

# The system's own Python, where that is the one in use.
PYTHON_PACKAGES=(python3 python3-dev python3-venv)

# A private libvirt with small guests. libvirt-daemon-system is not among them: it would bring units, and a default network.
# gcc (above) and libc6-dev build what busy guests run.
DEMO_PACKAGES=(busybox-static cpio libc6-dev libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86)

# Tests: a browser, programs that open a dump, a linter for the scripts; netcat, by which libvirt reaches a socket over SSH.
DEV_PACKAGES=(
  binutils curl fonts-dejavu-core gzip libvirt-clients libwrap0 lz4 netcat-openbsd ovmf qemu-utils shellcheck zstd
)

# Not for those who name a browser of their own: make test CHROMIUM=/path/to/it
BROWSER_PACKAGE=chromium-headless-shell

# An SSH server for tests. It is not installed, which would start it, but unpacked; it needs libwrap0.
SSHD_PACKAGE=openssh-server
