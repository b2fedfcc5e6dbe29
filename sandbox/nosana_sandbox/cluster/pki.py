"""The cluster's own certificate authority, by the machine's openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster.errors import ClusterError

VALID_DAYS: Final = "3650"

# Our own configuration: distributions differ in the extensions that theirs sets.
_CONFIGURATION: Final = """\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, digitalSignature
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth, serverAuth
"""


@dataclass(frozen=True)
class Identity:
    """A private key and its certificate, both PEM files."""

    key: Path
    certificate: Path


class Authority:
    """Creates identities in `folder`; its own is `ca`."""

    def __init__(self, folder: Path) -> None:
        """Create the authority."""
        self._folder = folder
        folder.mkdir(parents=True, mode=0o700)
        (folder / "openssl.cnf").write_text(_CONFIGURATION)
        self.identity = self._request("ca", "/CN=nosana-sandbox", "authority", ())

    def issue(self, name: str, user: str, group: str = "", alternatives: tuple[str, ...] = ()) -> Identity:
        """Create an identity; `alternatives` such as `IP:127.0.0.1` or `DNS:kubernetes`."""
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        authority = ("-CA", str(self.identity.certificate), "-CAkey", str(self.identity.key))
        names = ("-addext", f"subjectAltName={','.join(alternatives)}") if alternatives else ()
        return self._request(name, subject, "leaf", (*authority, *names))

    def key_pair(self, name: str) -> Identity:
        """Create a key pair; the `certificate` file holds the public key."""
        pair = Identity(self._folder / f"{name}.key", self._folder / f"{name}.pub")
        _openssl("genpkey", "-algorithm", "EC", *_CURVE, "-out", str(pair.key))
        _openssl("pkey", "-in", str(pair.key), "-pubout", "-out", str(pair.certificate))
        return pair

    def _request(self, name: str, subject: str, section: str, extra: tuple[str, ...]) -> Identity:
        made = Identity(self._folder / f"{name}.key", self._folder / f"{name}.crt")
        _openssl(
            *("req", "-x509", "-config", str(self._folder / "openssl.cnf"), "-extensions", section),
            *("-newkey", "ec", *_CURVE, "-nodes", "-days", VALID_DAYS, "-subj", subject),
            *("-keyout", str(made.key), "-out", str(made.certificate), *extra),
        )
        return made


_CURVE: Final = ("-pkeyopt", "ec_paramgen_curve:prime256v1")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(
            f"`openssl {arguments[0]}` failed, OpenSSL 3.0 or newer is needed: {done.stderr.strip()}"
        )
