# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmark's commands share: the rows, the disks, one measurement."""
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

VDISK = os.path.abspath(os.environ.get("VDISK", "vdisk"))
DRIVERS = Path(os.environ.get("BENCH", "build/test/bench"))
RESULTS = Path(os.environ.get("RESULTS", "build/bench"))
MIB = int(os.environ.get("IMAGE_MIB", "1024"))
IRQ = "33" if os.uname().machine == "aarch64" else "5"

# vdisk with a fixed setting
POLL = {"poll0": "--poll=0", "poll50": "--poll=50"}

# Each row: name, where the image is, arguments of the guest driver, those of fio
# if it can do the same.  "paced" is a guest that thinks after each answer: what it
# costs to wait for one that has little to do.
ROWS = [
    ("4k randread QD1", "tmpfs", "-q 1", "randread 4k 1"),
    ("4k randread paced 0.01 ms", "tmpfs", "-q 1 -w 10", None),
    ("4k randread paced 0.03 ms", "tmpfs", "-q 1 -w 30", None),
    ("4k randread paced 0.1 ms", "tmpfs", "-q 1 -w 100", None),
    ("4k randread paced 0.3 ms", "tmpfs", "-q 1 -w 300", None),
    ("4k randread paced 1 ms", "tmpfs", "-q 1 -w 1000", None),
    ("4k randread paced 3 ms", "tmpfs", "-q 1 -w 3000", None),
    ("4k randread QD4", "tmpfs", "-q 4", "randread 4k 4"),
    ("4k randread QD32", "tmpfs", "-q 32", "randread 4k 32"),
    # A guest that notifies for each request
    ("4k randread QD4 each", "tmpfs", "-q 4 -e", None),
    ("4k randread QD32 each", "tmpfs", "-q 32 -e", None),
    ("4k randread QD128", "tmpfs", "-q 128", "randread 4k 128"),
    ("4k randread QD256", "tmpfs", "-q 256", "randread 4k 256"),
    ("4k randwrite QD32", "tmpfs", "-r 0 -q 32", "randwrite 4k 32"),
    ("4k mixed 70/30 QD32", "tmpfs", "-r 70 -q 32", "randrw 4k 32"),
    ("128k read QD8", "tmpfs", "-s -b 131072 -q 8", "read 128k 8"),
    ("128k write QD8", "tmpfs", "-s -r 0 -b 131072 -q 8", "write 128k 8"),
    # As fio does it, with buffers that stay in the processor's cache.
    ("128k read QD8 few pages", "tmpfs", "-s -k -b 131072 -q 8", "read 128k 8"),
    ("128k write QD8 few pages", "tmpfs", "-s -k -r 0 -b 131072 -q 8", "write 128k 8"),
    ("4k write+flush QD8", "tmpfs", "-r 0 -f -q 8", "flush 4k 8"),
    ("4k randread QD1 cached", "disk", "-q 1", "randread 4k 1"),
    ("4k randread QD32 cached", "disk", "-q 32", "randread 4k 32"),
    ("4k randwrite QD32 cached", "disk", "-r 0 -q 32", "randwrite 4k 32"),
    ("128k read QD8 cached", "disk", "-s -b 131072 -q 8", "read 128k 8"),
    ("4k randread QD1 cold", "disk", "-q 1", "randread 4k 1"),
    ("4k randread QD32 cold", "disk", "-q 32", "randread 4k 32"),
    ("128k read QD8 cold", "disk", "-s -b 131072 -q 8", "read 128k 8"),
    ("4k randwrite QD32 cold", "disk", "-r 0 -q 32", "randwrite 4k 32"),
    ("4k write+flush QD8 cold", "disk", "-r 0 -f -q 8", "flush 4k 8"),
    # What may not cost more: the guest's memory, and the disk, of which a hole is
    # read here and there.
    ("QD32 in 64 MiB", "tmpfs", "-q 32 -m 64", None),
    ("QD32 in 256 MiB", "tmpfs", "-q 32 -m 256", None),
    ("QD32 in 1 GiB", "tmpfs", "-q 32 -m 1024", None),
    ("QD32 of 1 GiB, a hole", "hole", "-q 32 -u", None),
    ("QD32 of 32 GiB, a hole", "hole", "-q 32 -u -d 32768", None),
    ("QD32 of 1 TiB, a hole", "hole", "-q 32 -u -d 1048576", None),
]


def rows():
    """The rows whose names contain one of the words in ROWS, separated by ','."""
    wanted = [w for w in os.environ.get("ROWS", "").split(",") if w]
    return [r for r in ROWS if not wanted or any(w in r[0] for w in wanted)]


def make_image(path):
    """An image in which every 4 KiB begin with their number, which the guest
    driver checks; and which has no holes, which would not be read from disk."""
    if path.exists() and path.stat().st_size == MIB << 20:
        return
    rest = os.urandom(4088)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "wb") as f:
        for first in range(0, MIB << 8, 256):
            f.write(b"".join(struct.pack("=Q", first + i) + rest for i in range(256)))
        f.flush()
        os.fsync(f.fileno())
    part.rename(path)


def warm(path):
    """Have the image in the page cache."""
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


def chill(path):
    """Take the image out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def storage_daemon(image, direct):
    return [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=file,node-name=disk,filename={image},aio=io_uring,cache.direct={direct}",
        "--export",
        "type=vhost-user-blk,id=export,node-name=disk,writable=on,"
        "addr.type=fd,addr.str=3",
    ]


def drive(peer, image, arguments, before=(), within=(), options=()):
    """One run of the guest driver on a disk: what it printed.  'before' goes in
    front of the disk's command, 'within' in front of the driver's, 'options' are
    vdisk's."""
    direct = peer.endswith("direct")
    if peer in POLL:
        options = [*options, POLL[peer]]
    if peer in ("vdisk", "direct", *POLL):
        # The kernel takes its time to release the lock after the end.
        driver, command = "drive-vdisk", [VDISK, "--no-lock", *["--direct"] * direct, *options,
                                          "7", "0x2000000", IRQ, str(image)]
    else:
        driver, command = "drive-vhost", storage_daemon(
            image, "on" if direct else "off")
    if "-d" not in arguments:
        arguments = ["-d", str(MIB), *arguments]
    return run([*within, str(DRIVERS / driver), *arguments, *before, *command])


def run(command):
    """The JSON that a command prints; {} if it fails, which is told."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        print(f"failed: {' '.join(command)}\n{done.stderr.strip()}", file=sys.stderr)
        return {}
