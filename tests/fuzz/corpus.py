#!/usr/bin/env python3
"""corpus.py - writes the fuzz target's first streams: usage: corpus.py OUTDIR [STREAM-OF-QEMU MEGABYTES]

A stream of QEMU (what `migrate` writes for a guest of so many MiB) is cut to eight pages of its memory block.
"""
import struct, sys

PAGE, PAGES = 4096, 8


def name(s):
    return bytes([len(s)]) + s


def page(block, at, fill):
    return struct.pack('>Q', at | 0x08 | (0 if block else 0x20)) + (name(block) if block else b'') + fill * PAGE


def zero(block, at):
    return struct.pack('>Q', at | 0x02 | (0 if block else 0x20)) + (name(block) if block else b'') + b'\0'


def section(kind):
    return bytes([kind]) + struct.pack('>I', 2)


END = struct.pack('>Q', 0x10) + b'\x7e' + struct.pack('>I', 2)


def stream(devices=b'\x04\0\0\0\x05\x03cpu' + b'state of devices' + b'\0'):
    text = b'{"devices":[]}'
    out = struct.pack('>II', 0x5145564d, 3) + b'\x07' + struct.pack('>I', 7) + b'microvm'
    out += b'\x01' + struct.pack('>I', 2) + name(b'ram') + struct.pack('>II', 0, 4)
    out += struct.pack('>Q', PAGES * PAGE + 2 * PAGE | 0x04)
    out += name(b'mem') + struct.pack('>Q', PAGES * PAGE) + name(b'bios') + struct.pack('>Q', 2 * PAGE) + END
    out += section(2) + page(b'mem', 0, b'a') + page(None, 3 * PAGE, b'b') + page(b'bios', 0, b'r')
    out += page(b'mem', 5 * PAGE, b'c') + END
    out += section(3) + zero(b'mem', 5 * PAGE) + page(None, 6 * PAGE, b'd')
    for n in (1, 2, 4, 7):
        out += zero(None, n * PAGE)
    return out + END + devices + b'\x06' + struct.pack('>I', len(text)) + text


def main():
    for mode in range(3):
        with open('%s/made-%d' % (sys.argv[1], mode), 'wb') as f:
            f.write(bytes([mode]) + stream())
    if len(sys.argv) > 2:
        data = open(sys.argv[2], 'rb').read()
        end = data.rindex(b'\x06', 0, data.rindex(b'{"configuration"') if b'{"configuration"' in data
                          else data.rindex(b'{"page_size"')) - 1
        # the device sections begin behind the last end of the RAM section
        at = data.rindex(b'\x00\x00\x00\x00\x00\x00\x00\x10\x7e' + data[data.index(b'\x03ram') - 4:data.index(b'\x03ram')]) + 13
        with open(sys.argv[1] + '/real', 'wb') as f:
            f.write(b'\0' + stream(data[at:end])[:65000])
    return 0


sys.exit(main())
