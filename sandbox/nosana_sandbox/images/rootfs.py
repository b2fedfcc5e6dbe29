"""The root file system that all stand-in images share: Debian's static BusyBox and the least a program needs.

It has a real shell with the usual small programs. What looks up names inside static BusyBox dies
(wget, ping); `nslookup`, and everything that is given an address, works.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from nosana_sandbox.images.archive import File, folder, layer, script

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_layer(busybox: Path) -> bytes:
    """Return the layer made of the static BusyBox at `busybox`."""
    applets = subprocess.run((busybox, "--list"), capture_output=True, text=True, check=True).stdout.split()
    return layer(base_files(busybox.read_bytes(), applets))


def base_files(busybox: bytes, applets: list[str]) -> dict[str, File]:
    """Return what the layer holds, by path."""
    # Scripts of real images ask for bash; what they do with it in a job definition is plain shell.
    bash = script('#!/bin/sh\nexec /bin/sh "$@"\n')
    # In both places, as on a system whose /bin is /usr/bin; links to folders would be lost under a layer.
    places = ("bin", "usr/bin")
    return {
        **{f"{place}/{name}": File(link="/bin/busybox") for place in places for name in applets},
        **{f"{place}/bash": bash for place in places},
        "bin/busybox": File(busybox, 0o755),
        "sbin": folder(),
        "usr/sbin": folder(),
        "usr/local/bin": folder(),
        "etc/passwd": File(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
        "etc/group": File(b"root:x:0:\nnogroup:x:65534:\n"),
        "etc/bash.bashrc": File(b""),
        "root": File(None, 0o700),
        "tmp": File(None, 0o1777),
        "var/tmp": File(None, 0o1777),
    }
