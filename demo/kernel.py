"""A Linux kernel from the distribution's package and an initrd around busybox, kept between runs.

Nothing is installed: the package is downloaded and unpacked.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard

CACHE = Path(__file__).resolve().parent.parent / "var" / "demo"
_INIT = Path(__file__).with_name("init.sh")
_BUSY = Path(__file__).with_name("busy.c")
_BUSYBOX = Path("/bin/busybox")
_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")  # Debian's, Ubuntu's
_KERNEL_PACKAGE = re.compile(r"Depends: (linux-image-\d\S+)")
_MODULE = "qemu_fw_cfg.ko"  # tells QEMU where the kernel's VMCOREINFO is; loaded in guests that are made for it
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".zst": lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed),
}
_RELEASE = re.compile(rb"(\d+\.\d+\.\S+) \(")  # the boot sector's kernel_version (Documentation/arch/x86/boot.rst)
_SETUP_BYTES = 32 << 10
_FETCH_SEC = 300.0
_PACK_SEC = 30.0


class KernelMissing(RuntimeError):
    """No kernel for the demo guests could be had."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a guest boots: two files."""

    image: Path
    initrd: Path


def kernel(cache: Path = CACHE) -> Kernel:
    """The kernel and the initrd, fetched and built on first use. Raises ``KernelMissing``."""
    cache.mkdir(parents=True, exist_ok=True)
    image, module = cache / "vmlinuz", cache / _MODULE
    if not (image.exists() and module.exists()):
        _fetch(image, module)
    return Kernel(image, _initrd(cache / "initrd", module))


def _fetch(image: Path, module: Path) -> None:
    """Unpack the newest kernel package into a folder of its own and keep the kernel and one module, which Ubuntu has in another."""
    package = _package()
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".fetch-") as name:
        tree = _unpacked(package, Path(name))
        found = sorted((tree / "boot").glob("vmlinuz-*"))
        if not found:
            raise KernelMissing(f"{package} holds no kernel")
        if (text := module_in(tree)) is None:
            package = package.replace("linux-image-", "linux-modules-")
            text = module_in(_unpacked(package, Path(name)))
        if text is None:
            raise KernelMissing(f"{package} holds no {_MODULE}")
        new = Path(name) / _MODULE
        new.write_bytes(text)
        new.rename(module)
        found[0].rename(image)


def _unpacked(package: str, folder: Path) -> Path:
    """What the package would install, below a folder of its own in ``folder``."""
    there = folder / package
    there.mkdir()
    _run("apt-get", "download", "--quiet", "-o", "APT::Sandbox::User=root", package, cwd=there)
    (file,) = there.glob("*.deb")
    _run("dpkg", "-x", str(file), "tree", cwd=there)
    return there / "tree"


def module_in(tree: Path) -> bytes | None:
    """The module, which a distribution may have compressed: Debian by xz since 13, Ubuntu by zstd."""
    found = sorted(tree.rglob(f"{_MODULE}*"))
    return _DECOMPRESS[found[0].suffix](found[0].read_bytes()) if found else None


def _package() -> str:
    for name in _META_PACKAGES:
        listed = subprocess.run(["apt-cache", "depends", name], capture_output=True, text=True, check=False, timeout=_PACK_SEC)
        if found := _KERNEL_PACKAGE.search(listed.stdout):
            return found[1]
    raise KernelMissing(f"apt knows none of {', '.join(_META_PACKAGES)}. Run apt-get update, or set LIBVIRT_URI to a real libvirt.")


def _initrd(target: Path, module: Path) -> Path:
    """Always packed anew: it takes 50 ms, and is never older than ``init.sh`` or busybox."""
    if not _BUSYBOX.exists():
        raise KernelMissing(f"{_BUSYBOX} is missing: install busybox-static.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".initrd-") as name:
        root = Path(name) / "root"
        (root / "bin").mkdir(parents=True)
        shutil.copyfile(_BUSYBOX, root / "bin" / "busybox")
        shutil.copyfile(_INIT, root / "init")
        shutil.copyfile(module, root / _MODULE)
        for program in (root / "bin" / "busybox", root / "init"):
            program.chmod(0o755)
        (Path(name) / "initrd").write_bytes(_packed(root, ".", "bin", "bin/busybox", "init", _MODULE))
        (Path(name) / "initrd").rename(target)
    return target


def busy_initrd(cache: Path = CACHE) -> Path:
    """The initrd with the program of busy guests, which is built here. Raises ``KernelMissing``.

    To the kernel, archives one behind the other are one.
    """
    target, plain = cache / "initrd-busy", kernel(cache).initrd
    with tempfile.TemporaryDirectory(dir=cache, prefix=".busy-") as name:
        _run("gcc", "-static", "-O2", "-o", "busy", str(_BUSY), cwd=Path(name))
        both = Path(name) / "initrd"
        both.write_bytes(plain.read_bytes() + _packed(Path(name), "busy"))
        both.rename(target)
    return target


def debug_kernel(cache: Path = CACHE) -> Path:
    """The guests' kernel with its debug symbols, some 600 MB, fetched on first use. Raises ``KernelMissing``."""
    found = _RELEASE.search(kernel(cache).image.read_bytes()[:_SETUP_BYTES])
    if not found:
        raise KernelMissing("the guests' kernel does not say which one it is")
    release = found[1].decode()
    target = cache / f"vmlinux-{release}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".debug-") as name:
            tree = _unpacked(f"linux-image-{release}-dbg", Path(name))
            (tree / "usr/lib/debug/boot" / target.name).rename(target)
    return target


def _packed(root: Path, *names: str) -> bytes:
    """An archive of these, as the kernel takes it."""
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet", "--reproducible"],
        input="".join(f"{name}\n" for name in names).encode(),
        cwd=root,
        capture_output=True,
        check=False,
        timeout=_PACK_SEC,
    )
    if packed.returncode != 0:
        raise KernelMissing(f"cpio: {packed.stderr.decode(errors='replace').strip()}")
    return packed.stdout


def _run(*command: str, cwd: Path) -> None:
    try:
        ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=_FETCH_SEC)
    except FileNotFoundError:
        raise KernelMissing(f"{command[0]} is missing: the demo guests need a Debian or Ubuntu system.") from None
    except subprocess.TimeoutExpired:
        raise KernelMissing(f"{' '.join(command)} took longer than {_FETCH_SEC:g} s.") from None
    if ran.returncode != 0:
        raise KernelMissing(f"{' '.join(command)}: {ran.stderr.strip()}")
