#!/usr/bin/env python3
"""kernel.py - takes a Debian kernel package's tree apart: vmlinux, and an initramfs with modules.

    kernel.py vmlinux VMLINUZ OUT                     the uncompressed kernel (booted through PVH)
    kernel.py initramfs MODULES INIT OUT NAME...      cpio (newc): INIT as /init, the modules NAME...
                                                      and what they need, in loading order

Called by images/build only. Standard library, and lz4 or zstd where the kernel is packed so.
"""
import gzip
import lzma
import os
import stat
import struct
import subprocess
import sys


def fail(text):
    sys.exit("kernel.py: " + text)


def pipe(*command):
    def run(data):
        # A stream may be followed by the four bytes of its size, which the tools complain about.
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.stdout

    return run


def unxz(data):
    return lzma.LZMADecompressor().decompress(data)


PACKED = [
    (b"\x02\x21\x4c\x18", pipe("lz4", "-d", "-c")),
    (b"\x28\xb5\x2f\xfd", pipe("zstd", "-d", "-c", "-q")),
    (b"\xfd7zXZ\x00", unxz),
    (b"\x1f\x8b\x08", gzip.decompress),
]


def vmlinux(source, target):
    """The boot protocol's header says where the packed kernel is (Documentation/x86/boot.rst)."""
    data = open(source, "rb").read()
    if data[0x202:0x206] != b"HdrS":
        fail(f"{source} is no bzImage")
    setup = (data[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup * 512 + offset:][:length]
    for magic, unpack in PACKED:
        if not payload.startswith(magic):
            continue
        image = unpack(payload)
        if not image.startswith(b"\x7fELF"):
            fail(f"{source}: the packed kernel is no ELF file")
        with open(target, "wb") as out:
            out.write(image)
        return
    fail(f"{source}: packed in a way unknown here ({payload[:4].hex()})")


def module_files(tree):
    """Module name (with _ for -) to path."""
    found = {}
    for folder, _, files in os.walk(tree):
        for name in files:
            for end in (".ko", ".ko.xz", ".ko.zst"):
                if name.endswith(end):
                    found[name[: -len(end)].replace("-", "_")] = os.path.join(folder, name)
    return found


SIGNED = b"~Module signature appended~\n"


def unsigned(image):
    """Without its signature: checking a dozen took an emulated machine 0.7 s, and the initramfs is ours."""
    if not image.endswith(SIGNED):
        return image
    (length,) = struct.unpack_from(">I", image, len(image) - len(SIGNED) - 4)
    return image[: -len(SIGNED) - 12 - length]


def module_read(path):
    data = open(path, "rb").read()
    if path.endswith(".xz"):
        data = lzma.decompress(data)
    elif path.endswith(".zst"):
        data = pipe("zstd", "-d", "-c", "-q")(data)
    return unsigned(data)


def module_needs(image):
    """The names in the module's own "depends=" record."""
    at = image.find(b"\0depends=")
    if at < 0:
        return []
    text = image[at + 9: image.index(b"\0", at + 9)].decode()
    return [name.replace("-", "_") for name in text.split(",") if name]


def module_order(tree, wanted):
    """[(name, image)], each after what it needs. A name with "?" behind it may be missing."""
    files, order, seen = module_files(tree), [], set()
    builtin = set()
    with open(os.path.join(tree, "modules.builtin")) as lines:
        for line in lines:
            builtin.add(os.path.basename(line.strip())[:-3].replace("-", "_"))

    def add(name, needed):
        if name in seen or name in builtin:
            return
        if name not in files:
            if needed:
                fail(f"no module {name} in {tree}")
            return
        seen.add(name)
        image = module_read(files[name])
        for other in module_needs(image):
            add(other, True)
        order.append((name, image))

    for name in wanted:
        add(name.rstrip("?").replace("-", "_"), not name.endswith("?"))
    return order


def cpio_entry(number, name, mode, data=b"", device=(0, 0)):
    name = name.encode() + b"\0"
    numbers = [number, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(name), 0]
    head = b"070701" + b"".join(b"%08X" % n for n in numbers) + name
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def initramfs(tree, init, target, *wanted):
    entries = [(name, stat.S_IFDIR | 0o755) for name in ("dev", "proc", "sys", "run", "m")]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    entries.append(("init", stat.S_IFREG | 0o755, open(init, "rb").read()))
    order = module_order(tree, wanted)
    for name, image in order:
        entries.append((f"m/{name}.ko", stat.S_IFREG | 0o644, image))
    entries.append(("m/order", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n, _ in order).encode()))
    with open(target, "wb") as out:
        for number, entry in enumerate(entries, 1):
            out.write(cpio_entry(number, *entry))
        out.write(cpio_entry(0, "TRAILER!!!", 0))


COMMANDS = {"vmlinux": vmlinux, "initramfs": initramfs}

if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
