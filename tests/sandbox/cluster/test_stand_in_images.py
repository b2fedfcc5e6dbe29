from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.images.archive import File, Image, layer, write_archive
from nosana_sandbox.images.references import full_name
from nosana_sandbox.images.rootfs import base_files
from nosana_sandbox.images.stand_ins import (
    CATALOGUE,
    OWN_PROGRAM,
    SERVES,
    StandIn,
    exposed_ports,
    stand_ins_for,
    started_programs,
)
from nosana_sandbox.resources.catalogue import started_files

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("nosana/stats", "docker.io/nosana/stats:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("docker.io/nosana/tensorflow-jupyter:2.0.0", "docker.io/nosana/tensorflow-jupyter:2.0.0"),
        ("registry.hub.docker.com/nosana/stats:v1.2.1", "registry.hub.docker.com/nosana/stats:v1.2.1"),
        ("ghcr.io/open-webui/open-webui:ollama", "ghcr.io/open-webui/open-webui:ollama"),
        ("localhost/volume-demo", "localhost/volume-demo:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("host:5000/a/b:1", "host:5000/a/b:1"),
        (f"r8.im/kasumi-1/kandinsky-2@{DIGEST}", f"r8.im/kasumi-1/kandinsky-2@{DIGEST}"),
        (f"ubuntu:24.04@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
    ],
)
def test_short_names_have_one_full_form(image: str, name: str) -> None:
    assert full_name(image) == name
    assert full_name(name) == name


def test_an_archive_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    base = layer({"bin/sh": File(b"shell", 0o755), "etc/motd": File(b"hi")})
    for name in ("one", "two"):
        images = [stand_in.build(base) for stand_in in CATALOGUE]
        write_archive(images, "x86_64", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_archive_names_its_images_and_holds_what_they_share_once(tmp_path: Path) -> None:
    base = layer({"bin/sh": File(b"shell", 0o755)})
    images = [
        Image("docker.io/library/a:1", (base,), cmd=("sh",)),
        Image("docker.io/library/b:1", (base, layer({"x": File(b"y")})), ("sh", "-c"), (), {"A": "b"}),
    ]
    write_archive(images, "aarch64", tmp_path / "archive")
    with tarfile.open(tmp_path / "archive") as tar:
        blobs = {
            member.name.rpartition("/")[2]: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }
    index = json.loads(blobs.pop("index.json"))
    blobs.pop("oci-layout")
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())
    assert [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]] == [
        "docker.io/library/a:1",
        "docker.io/library/b:1",
    ]
    assert list(blobs.values()).count(base) == 1

    def blob(entry: dict[str, Any]) -> Any:
        content = blobs[entry["digest"].removeprefix("sha256:")]
        assert len(content) == entry["size"]
        return json.loads(content)

    second = blob(index["manifests"][1])
    config = blob(second["config"])
    assert config["architecture"] == "arm64"
    assert config["config"] == {"Env": ["A=b"], "Entrypoint": ["sh", "-c"]}
    assert config["rootfs"]["diff_ids"] == [part["digest"] for part in second["layers"]]


def test_folders_come_before_what_is_in_them() -> None:
    made = layer({"usr/local/bin/run": File(b"x", 0o755), "tmp": File(None, 0o1777)})
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == [
        "tmp",
        "usr",
        "usr/local",
        "usr/local/bin",
        "usr/local/bin/run",
    ]
    assert entries[0].mode == 0o1777
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 0)}


def test_the_root_has_its_programs_where_scripts_look_for_them() -> None:
    files = base_files(b"\x7fELF", ["sh", "env", "echo", "busybox"])
    for path in ("bin/sh", "usr/bin/env", "bin/echo"):
        assert files[path].link == "/bin/busybox"
    for path in ("bin/bash", "usr/bin/bash", "bin/busybox"):
        assert files[path].mode == 0o755
        assert files[path].link is None


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        ([], []),
        (["echo", "hello"], []),
        (["jupyter", "lab", "--port=8888"], ["jupyter"]),
        (["/opt/venv/bin/python", "-u", "x.py"], ["/opt/venv/bin/python"]),
        (["sh", "-c", "python main.py --o /x && echo done"], ["python"]),
        (["bash", "-c", "source /etc/bash.bashrc && jupyter notebook --ip 0.0.0.0"], ["jupyter"]),
        (["sh", "-c", "for i in `seq 1 10`; do echo $i; sleep 1; done"], []),
        (["sh", "-c", "for m in a b; do ollama pull $m; done; nvidia-smi -L;"], ["ollama", "nvidia-smi"]),
        (["bash", "./entry/start.sh"], []),
        (["--model", "/models/x"], []),
        (["nvidia-smi -L"], []),
        (["/usr/bin/env", "x"], []),
    ],
)
def test_programs_that_a_command_line_starts(words: list[str], programs: list[str]) -> None:
    assert started_programs(words) == programs


@pytest.mark.parametrize(
    ("expose", "ports"),
    [
        (None, []),
        (8888, [8888]),
        ("80", [80]),
        ([{"port": 3000}, {"port": 2333}], [3000, 2333]),
        ([1000, {"__spread__": "%%x%%"}], [1000]),
        ("8000-8010", []),
        ([0, 65536, "²"], []),
    ],
)
def test_ports_of_a_definition(expose: Any, ports: list[int]) -> None:
    assert exposed_ports(expose) == ports


def definition(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"version": "0.1", "type": "container", "ops": [{"args": args} for args in operations]}


def test_an_image_that_starts_itself_gets_an_entrypoint() -> None:
    for cmd in (None, [], ["--model", "x", "--port", "9000"]):
        (made,) = stand_ins_for([definition({"image": "vllm/vllm", "cmd": cmd, "expose": 9000})])
        assert made.entrypoint == (OWN_PROGRAM,)
        assert made.programs == {OWN_PROGRAM: SERVES}
        assert made.ports == (9000,)


def test_a_server_says_what_health_checks_expect() -> None:
    checks = [
        {"type": "http", "method": "GET", "path": "/ready?x=1", "expected_status": 204},
        {"type": "http", "method": "POST", "path": "/v1/chat", "expected_status": 200},
        {"type": "websocket", "expected_response": "hello"},
    ]
    expose = [{"port": 9000, "health_checks": checks}, {"port": "%%global.variables.P%%"}]
    (made,) = stand_ins_for([definition({"image": "a", "expose": expose})])
    assert made.statuses == {"9000 GET /ready?x=1": 204}
    assert made.greetings == {"9000": "hello"}


def test_what_serves_for_one_definition_serves_for_all() -> None:
    one, other = {"image": "a", "cmd": ["run"]}, {"image": "a", "cmd": ["run"], "expose": [1, 2]}
    (made,) = stand_ins_for([definition(one), definition(other), definition({**other, "expose": 3})])
    assert made.programs["/usr/local/bin/run"] == SERVES
    assert made.ports == (1, 2, 3)


def test_a_program_of_the_images_own_folder_is_there() -> None:
    ops = [{"image": "a", "cmd": ["./check"]}, {"image": "b", "cmd": ["./run"], "work_dir": "/app"}]
    here, there = stand_ins_for([definition(*ops)])
    assert here.programs.keys() == {OWN_PROGRAM, "/check"}
    assert there.programs.keys() == {OWN_PROGRAM, "/app/run"}


def test_one_image_in_several_operations_has_the_programs_of_all() -> None:
    (made,) = stand_ins_for(
        [
            definition({"image": "a", "cmd": ["fetch"]}),
            definition({"image": "a:latest", "cmd": "train --all"}),
        ]
    )
    assert {"/usr/local/bin/fetch", "/usr/local/bin/train"} <= made.programs.keys()
    assert made.entrypoint == ()


def test_an_image_of_the_catalogue_keeps_its_shape() -> None:
    (made,) = stand_ins_for([definition({"image": "docker.io/library/ubuntu:latest", "cmd": "python x.py"})])
    assert made == StandIn("ubuntu", cmd=("/bin/bash",))


@pytest.mark.parametrize(
    "broken",
    [{}, {"ops": None}, {"ops": ["x", {"args": 3}, {"args": {}}, {"args": {"image": 4}}]}],
)
def test_what_is_no_definition_has_no_images(broken: dict[str, Any]) -> None:
    assert stand_ins_for([broken]) == ()


def test_an_image_known_only_while_the_job_runs_is_left_out() -> None:
    assert stand_ins_for([definition({"image": "docker.io/%%ops.a.results.image%%"})]) == ()


def test_the_shell_takes_our_wget_and_not_its_own() -> None:
    files = base_files(b"\x7fELF\0vi\0wget\0which\0", ["wget", "which"])
    assert files["bin/busybox"].content == b"\x7fELF\0vi\0wgot\0which\0"
    assert b"exec ${limit:+timeout" in (files["usr/bin/wget"].content or b"")


def op(name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "args": args, **more}


def test_results_are_printed_and_an_image_that_follows_from_one_is_there() -> None:
    results = {
        "image": "(?<=docker-image ).*",
        "chunks": {"regex": r"(?<=chunk-\d+ ).*", "logType": ["stdout"]},
        "Token": "(?<=token: ).+",
        "odd": "Device [0-9].*",
        "broken": 3,
    }
    spread = [{"chunked": True, "__spread__": "%%ops.first.results.chunks%%"}]
    second = {"image": "ghcr.io/a/%%ops.first.results.image%%:1", "expose": 8001, "resources": spread}
    unknown = {"image": "docker.io/%%ops.first.results.nothing%%"}
    ops = [
        op("first", {"image": "a", "cmd": ["find"]}, results=results),
        op("second", second),
        op("x", unknown),
    ]
    first, then = stand_ins_for([{"ops": ops}])
    assert first.says == ("docker-image stand-in-image", "chunk-1 []", "token: stand-in-token")
    assert (then.image, then.ports) == ("ghcr.io/a/stand-in-image:1", (8001,))


def test_fetched_scripts_are_those_that_a_command_line_names() -> None:
    def bucket(path: str, target: str) -> dict[str, Any]:
        return {"type": "S3", "url": f"https://models.example{path}", "target": target}

    run = {
        "entrypoint": ["/bin/sh", "./config/run.sh"],
        "resources": [bucket("/fold/", "/config/"), "x", None],
    }
    below = {"cmd": ["sh", "a/b.sh", "/models"], "work_dir": "/w", "resources": [bucket("/r", "/w")]}
    line = {"cmd": "sh /w/x", "resources": [bucket("/r", "/w"), {"type": "HF", "target": "/w"}]}
    assert list(started_files([definition(run, below, line), {"ops": None}])) == [
        "fold/run.sh",
        "r/sh",
        "r/a/b.sh",
    ]
