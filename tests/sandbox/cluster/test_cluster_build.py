from __future__ import annotations

from pathlib import Path

import pytest

from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster import build
from nosana_sandbox.cluster.errors import BuildError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOSANA_SANDBOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, build: str) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(f'#!/bin/sh\nif [ "$1" = env ]; then echo {version}; exit; fi\n{build}\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")


# What `go build … -o TARGET PACKAGE…` leaves: a folder gets a file for each package.
MAKES_FILES = """
while [ "$1" != -o ]; do shift; done
target=$2; shift 2
if [ -d "$target" ]; then for p; do echo built > "$target/${p##*/}"; done; else echo built > "$target"; fi
"""


def test_programs_are_built_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path, monkeypatch, "go1.26.0", MAKES_FILES)
    lines: list[str] = []
    folder = build.ensure_programs(lines.append)
    assert folder.is_relative_to(cache)
    names = {"etcd", "coredns", "kubectl", "kubelet", "kube-proxy", "kube-apiserver"}
    assert names <= {file.name for file in folder.iterdir()}
    assert any("because this machine has not built these versions yet" in line for line in lines)
    lines.clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert build.ensure_programs(lines.append) == folder
    assert lines == []
    assert {entry.name for entry in folder.parent.iterdir()} == {"bin", "lock"}


def test_only_what_is_missing_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path, monkeypatch, "go1.26.0", MAKES_FILES)
    folder = build.ensure_programs(lambda line: None)
    (folder / "etcd").unlink()
    lines: list[str] = []
    build.ensure_programs(lines.append)
    assert [line for line in lines if line.startswith("building ")][1:] == ["building etcd"]


def test_a_failed_build_leaves_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path, monkeypatch, "go1.26.0", MAKES_FILES + "echo no space left >&2; exit 1")
    with pytest.raises(BuildError, match=r"(?s)`go build` of kube-apiserver.*failed.*no space left"):
        build.ensure_programs(lambda line: None)
    assert not list((cache_folder() / build.cache_key() / "bin").iterdir())


@pytest.mark.parametrize(
    ("version", "used"), [((1, 21), "/usr/bin/go"), ((1, 19), "our own"), ((0, 0), "our own")]
)
def test_an_old_go_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], used: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(build, "_go_version", lambda go: version if go == "/usr/bin/go" else (0, 0))
    monkeypatch.setattr(build, "_install_go", lambda report: "our own")
    assert build._find_go(lambda line: None) == used


def test_a_go_that_cannot_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no network >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(BuildError, match=r"no network.*install Go 1\.21 or newer by hand"):
        build._install_go(lambda line: None)


def test_the_versions_in_go_mod_are_the_ones_that_name_the_folder() -> None:
    wanted = {
        "kubernetes": f"k8s.io/kubernetes v{build.KUBERNETES_VERSION}",
        "etcd": f"go.etcd.io/etcd/server/v3 v{build.ETCD_VERSION}",
        "coredns": f"github.com/coredns/coredns v{build.COREDNS_VERSION}",
        "helm": f"helm.sh/helm/v3 v{build.HELM_VERSION}",
    }
    for module, line in wanted.items():
        assert line in (build.GO_MODULES / module / "go.mod").read_text()
    staging = (build.GO_MODULES / "kubernetes" / "go.mod").read_text().count(" v0.35.4\n")
    assert staging >= 31
