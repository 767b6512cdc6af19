"""Memory Dumps: captures the memory of running KVM/QEMU guests as sealed evidence."""

__version__ = "0.1.0"
