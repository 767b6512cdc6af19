"""Whether the system's libvirt has VMs that we may see. Exit code 0: it has; 1: not, and standard output says why."""

from __future__ import annotations

import sys

import libvirt

URI = "qemu:///system"


def main() -> int:
    """Look, and say what was seen."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # no words on standard error
    try:
        connection = libvirt.open(URI)
        domains = len(connection.listAllDomains())
        connection.close()
    except libvirt.libvirtError as error:
        print(f"{URI} cannot be used: {error.get_error_message()}.")
        return 1
    if domains == 0:
        print(f"{URI} has no VM.")
    return 0 if domains else 1


if __name__ == "__main__":
    sys.exit(main())
