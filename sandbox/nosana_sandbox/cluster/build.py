"""The cluster's programs, built once from Go modules into a cache folder that the versions name.

Kubernetes' programs are not available as plain files everywhere, but their Go modules are; `sandbox/gobuild`
holds one small module for each project, with every dependency's hash in its go.sum.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nosana_sandbox.cache import Report, cache_folder
from nosana_sandbox.cluster.errors import BuildError

GO_MODULES: Final = Path(__file__).parents[2] / "gobuild"
KUBERNETES_VERSION: Final = "1.35.4"
ETCD_VERSION: Final = "3.6.8"
COREDNS_VERSION: Final = "1.14.7"
HELM_VERSION: Final = "3.22.0"
KUBO_VERSION: Final = "0.43.1"

GO_USABLE: Final = (1, 21)
"""From this version on, `go` downloads the tool chain that a go.mod requires."""

PROGRESS_EVERY: Final = 15.0
"""Seconds between two progress lines of a running build."""


@dataclass(frozen=True)
class Program:
    """One Go module of ours and the programs built from it.

    `outputs` maps the file to its Go package; `version_flags` are `-X` settings without which a program calls
    itself v0.0.0 and clients that read the version misbehave.
    """

    module: str
    outputs: Mapping[str, str]
    version_flags: tuple[str, ...] = ()


_COMPONENT: Final = "k8s.io/component-base/version"
_KUBERNETES_MAJOR, _KUBERNETES_MINOR, _ = KUBERNETES_VERSION.split(".")

PROGRAMS: Final = (
    Program(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        (
            f"{_COMPONENT}.gitVersion=v{KUBERNETES_VERSION}",
            f"{_COMPONENT}.gitMajor={_KUBERNETES_MAJOR}",
            f"{_COMPONENT}.gitMinor={_KUBERNETES_MINOR}",
            f"{_COMPONENT}.gitTreeState=clean",
        ),
    ),
    Program("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Program("coredns", {"coredns": "."}),
)

STAND_IN: Final = Program("standin", {"standin": "."})
"""The server in stand-in images; a separate module, so that a change to it rebuilds nothing else."""

_HELM_KUBERNETES: Final = "37"
"""Minor of the client libraries in Helm's go.mod: `helm template` renders for this version without a cluster."""
HELM: Final = Program(
    "helm",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    (
        f"helm.sh/helm/v3/internal/version.version=v{HELM_VERSION}",
        *(
            f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}"
            for package in ("chartutil", "lint/rules")
            for part in ("Major=1", f"Minor={_HELM_KUBERNETES}")
        ),
    ),
)
"""Separate from the cluster's programs, which need no rebuild for it."""

VERDICTS: Final = Program("verdicts", {"verdicts": "."})
"""Prints the status that kstatus and Argo CD compute for objects; used by tests."""

KUBO: Final = Program("kubo", {"ipfs": "github.com/ipfs/kubo/cmd/ipfs"})
"""An IPFS node; used by the contract tests only."""


def cache_key() -> str:
    """The folder name for the current versions; its last part changes with every file that the build reads."""
    versions = f"k8s-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}-coredns-{COREDNS_VERSION}"
    return f"{versions}-{_digest(PROGRAMS)}"


def _digest(programs: Sequence[Program]) -> str:
    digest = hashlib.sha256()
    for program in programs:
        digest.update(repr((program.module, sorted(program.outputs.items()), program.version_flags)).encode())
        for file in sorted((GO_MODULES / program.module).iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:8]


def ensure_programs(report: Report) -> Path:
    """Return the folder that holds the cluster's programs; build what the cache lacks.

    Safe under concurrent runs (the second waits for the first) and against being killed: a program appears
    under its name only when it is whole. Raises `BuildError`.
    """
    return _ensure(PROGRAMS, cache_key(), "; about 5 to 10 minutes on 2 cores, once", report)


def ensure_stand_in(report: Report) -> Path:
    """Return the program of stand-in images, with the guarantees of `ensure_programs`."""
    return _ensure((STAND_IN,), f"standin-{_digest((STAND_IN,))}", "", report) / "standin"


def ensure_helm(report: Report) -> Path:
    """Return Helm's program, with the guarantees of `ensure_programs`."""
    key = f"helm-{HELM_VERSION}-{_digest((HELM,))}"
    return _ensure((HELM,), key, "; about 3 minutes on 2 cores, once", report) / "helm"


def verdicts_key() -> str:
    """The folder name of the program `verdicts`, as `cache_key`."""
    return f"verdicts-{_digest((VERDICTS,))}"


def ensure_verdicts(report: Report) -> Path:
    """Return the program `verdicts`, with the guarantees of `ensure_programs`."""
    return _ensure((VERDICTS,), verdicts_key(), "", report) / "verdicts"


def kubo_key() -> str:
    """The name of the folder with Kubo's program, as `cache_key`."""
    return f"kubo-{KUBO_VERSION}-{_digest((KUBO,))}"


def ensure_kubo(report: Report) -> Path:
    """Return Kubo's program, under the same promises as `ensure_programs`."""
    return _ensure((KUBO,), kubo_key(), "; about 3 minutes on 2 cores, once", report) / "ipfs"


def _ensure(programs: Sequence[Program], key: str, how_long: str, report: Report) -> Path:
    folder = cache_folder() / key / "bin"
    if not _missing(programs, folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / "lock", report):
        lacking = [p for p in programs if _missing((p,), folder)]
        if lacking:
            go = _find_go(report)
            report(
                "building programs from source, because this machine has not built these "
                f"versions yet{how_long}"
            )
            for program in lacking:
                _build(go, program, folder, report)
    return folder


def _missing(programs: Sequence[Program], folder: Path) -> set[str]:
    return {o for program in programs for o in program.outputs if not (folder / o).is_file()}


@contextmanager
def _locked(lock: Path, report: Report) -> Iterator[None]:
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting, because another run is building these programs")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _find_go(report: Report) -> str:
    """The machine's Go if it can download the tool chain that go.mod requires, else one that we install."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(_own_go())):
        if candidate is not None and _go_version(candidate) >= GO_USABLE:
            return candidate
    return _install_go(report)


def _go_version(go: str) -> tuple[int, int]:
    try:
        output = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return (0, 0)
    match = re.match(r"go(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _own_go() -> Path:
    return cache_folder() / "go" / "go" / "bin" / "go"


def _install_go(report: Report) -> str:
    """Install Go as a Python package pinned with its hash, so that a machine without Go needs no manual step."""
    report(f"installing Go, because this machine has no version from {GO_USABLE[0]}.{GO_USABLE[1]} on")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    target = _own_go().parents[2]
    done = subprocess.run(
        [
            *pip,
            "--require-hashes",
            "--upgrade",
            "--target",
            str(target),
            "-r",
            str(GO_MODULES / "toolchain.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    go = _own_go()
    if done.returncode != 0 or not go.is_file():
        raise BuildError(
            f"Go could not be installed ({done.stderr.strip()[-400:]}); install Go "
            f"{GO_USABLE[0]}.{GO_USABLE[1]} or newer by hand"
        )
    for program in (go, *(go.parents[1] / "pkg" / "tool").rglob("*")):
        if program.is_file():
            program.chmod(program.stat().st_mode | 0o755)
    return str(go)


def _build(go: str, program: Program, folder: Path, report: Report) -> None:
    """Build one module's programs next to `folder`, then move them in."""
    source = GO_MODULES / program.module
    flags = " ".join(["-s", "-w", *(f"-X {flag}" for flag in program.version_flags)])
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    report(f"building {', '.join(program.outputs)}")
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as work:
        log = Path(work) / "log"
        started = time.monotonic()
        # Several packages need a folder as target; each file is then named after its package.
        target = work if len(program.outputs) > 1 else str(Path(work) / next(iter(program.outputs)))
        command = [
            go,
            "build",
            "-v",
            "-mod=readonly",
            "-buildvcs=false",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, target, *program.outputs.values()],
                cwd=source,
                env=environment,
                stdout=output,
                stderr=output,
            )
            try:
                while (code := _wait(process)) is None:
                    # `go build -v` prints a line per package: compiled, or about to be.
                    packages = log.read_bytes().count(b"\n")
                    report(f"  {packages} packages compiled after {time.monotonic() - started:.0f} s")
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(
                f"`go build` of {', '.join(program.outputs)} in {source} failed; see its output, and check "
                f"that Go's module proxy can be reached and that the disk has 5 GiB free:\n{tail}"
            )
        for name in program.outputs:
            (Path(work) / name).rename(folder / name)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(PROGRESS_EVERY)
    except subprocess.TimeoutExpired:
        return None
