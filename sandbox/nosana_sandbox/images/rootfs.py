"""The root file system that all stand-in images share: Debian's static BusyBox, a server, and minimal files.

It has a real shell with the usual small programs. Static BusyBox cannot look up names, except by `nslookup`,
and Debian's `wget` dies of a time limit. Jobs do both, so `wget` is a script around it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from nosana_sandbox.images.archive import File, folder, layer, script

WGET: Final = """\
#!/bin/sh
# Looks the host's name up as the system's resolver would, then lets BusyBox fetch from the address.
look_up() {
  found=$(awk -v n="$1" '{ for (i = 2; i <= NF; i++) if ($i == n) { print $1; exit } }' /etc/hosts)
  for domain in $(sed -n 's/^search //p' /etc/resolv.conf) ""; do
    [ -n "$found" ] && break
    found=$(nslookup -type=a "$1${domain:+.$domain}." 2>/dev/null |
      sed -n '/^Name:/,$ s/^Address: //p' | head -n 1)
  done
  [ -n "$found" ] && echo "$found" && return
  echo "wget: bad address '$1'" >&2
  return 1
}
limit=
left=$#
while [ "$left" -gt 0 ]; do
  word=$1
  shift
  left=$((left - 1))
  case $word in
    -T | --timeout)
      limit=$1
      shift
      left=$((left - 1))
      ;;
    -T?* | --timeout=*)
      limit=${word#-T}
      limit=${limit#--timeout=}
      ;;
    http://*)
      rest=${word#http://}
      authority=${rest%%/*}
      name=${authority%%:*}
      case $name in
        *[!0-9.]*)
          address=$(look_up "$name") || exit 1
          set -- "$@" --header "Host: $authority" "http://$address${rest#"$name"}"
          ;;
        *) set -- "$@" "$word" ;;
      esac
      ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec ${limit:+timeout "$limit"} busybox wgot "$@"
"""

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


SERVER: Final = "/usr/lib/stand-in/server"
"""The server's path in the layer."""


def base_layer(busybox: Path, server: Path) -> bytes:
    """Return the layer made of the static BusyBox at `busybox` and of `sandbox/gobuild/standin`, as built."""
    applets = subprocess.run((busybox, "--list"), capture_output=True, text=True, check=True).stdout.split()
    files = base_files(busybox.read_bytes(), applets)
    return layer({**files, SERVER.lstrip("/"): File(server.read_bytes(), 0o755)})


def base_files(busybox: bytes, applets: list[str]) -> dict[str, File]:
    """The files of the layer by path."""
    # Scripts of real images ask for bash; what they do with it in a job definition is plain shell.
    bash = script('#!/bin/sh\nexec /bin/sh "$@"\n')
    # In both places, as on a system whose /bin is /usr/bin; links to folders would be lost under a layer.
    places = ("bin", "usr/bin")
    # BusyBox' shell takes its own programs before any file: its wget has to give the name away.
    busybox = busybox.replace(b"\0wget\0", b"\0wgot\0")
    return {
        **{f"{place}/{name}": File(link="/bin/busybox") for place in places for name in applets},
        **{f"{place}/bash": bash for place in places},
        **{f"{place}/wget": script(WGET) for place in places},
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
