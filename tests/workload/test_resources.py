"""Resources of ops: the pod's part, the Secret, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nosana_operator.api import Resources
from nosana_operator.fetching.spec import S3, Credentials, HuggingFace, Ollama, S3Source, read_spec
from nosana_operator.workload import Fetching, JobContext, build_op_objects, unsupported
from support.workload import context, op


def made(*resources: dict[str, Any], room: str | None = None, **args: Any) -> JobContext:
    ctx = context(
        op("x", resources=list(resources), **args), resources=Resources(ephemeral_storage=room, memory="1Gi")
    )
    return replace(ctx, fetching=Fetching(image="fetcher:1", mirrors={"s3://a": "https://b"}))


def parts(ctx: JobContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Secret's content and the pod's spec."""
    secret, pod = build_op_objects(ctx, 0)
    assert (secret["kind"], pod["kind"]) == ("Secret", "Pod")
    return json.loads(secret["stringData"]["spec.json"]), pod["spec"]


def hf(target: str, **more: Any) -> dict[str, Any]:
    return {"type": "HF", "repo": "lab/m", "target": target, **more}


def s3(target: str, **more: Any) -> dict[str, Any]:
    return {"type": "S3", "url": "https://m.io/x", "target": target, **more}


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        m["mountPath"]: {k: v for k, v in m.items() if k != "mountPath"} for m in container["volumeMounts"]
    }


IAM = {"REGION": "r", "ACCESS_KEY_ID": "AKIA", "SECRET_ACCESS_KEY": "very-secret"}


def test_the_fetcher_reads_what_is_written(tmp_path: Path) -> None:
    ctx = made(
        s3("/a", files=["f"], IAM=IAM, allowWrite=True),
        {"type": "S3", "bucket": "b", "target": "/b", "IAM": {**IAM, "ACCESS_KEY_ID": ""}},
        {"type": "S3", "buckets": [{"url": "s3://x"}, {"url": "s3://y", "files": ["g"]}], "target": "/c"},
        hf("/d/", revision="v1", files=["h"], accessToken="hf_t"),
        hf("/e"),
        {"type": "Ollama", "model": "llama3"},
        room="10G",
    )
    body, _ = parts(ctx)
    (tmp_path / "spec.json").write_text(json.dumps(body))
    spec = read_spec(tmp_path / "spec.json")
    at = [Path("/resources") / str(n) for n in range(6)]
    assert spec.resources == (
        S3(at[0], (S3Source("https://m.io/x", None, ("f",)),), Credentials("r", "AKIA", "very-secret"), True),
        S3(at[1], (S3Source(None, "b"),)),
        S3(at[2], (S3Source("s3://x"), S3Source("s3://y", None, ("g",)))),
        HuggingFace(at[3], "lab/m", "v1", ("h",), "hf_t"),
        HuggingFace(at[4], "lab/m"),
        Ollama(at[5], "llama3"),
    )
    assert spec.room == 10**10
    assert spec.mirrors == {"s3://nos-ai-models-qllsn32u": "https://models.nosana.io", "s3://a": "https://b"}


def test_credentials_are_in_the_secret_alone() -> None:
    secret, pod = build_op_objects(made(s3("/a", IAM=IAM), hf("/b", accessToken="hf_token")), 0)
    for word in ("very-secret", "hf_token", "AKIA"):
        assert word in json.dumps(secret)
        assert word not in json.dumps(pod)
    assert secret["metadata"]["ownerReferences"] == pod["metadata"]["ownerReferences"]
    assert {"name": "fetch", "secret": {"secretName": "job-0-fetch", "defaultMode": 0o400}} in pod["spec"][
        "volumes"
    ]
    op_mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert "fetch" not in [mount["name"] for mount in op_mounts]


def test_targets_are_read_only_unless_they_may_be_written() -> None:
    _, pod = parts(made(s3("/a"), s3("/b", allowWrite=True), {"type": "Ollama", "model": "m"}))
    found = mounts(pod["containers"][0])
    del found["/dev/shm"]
    assert found == {
        "/a": {"name": "resource-0", "readOnly": True},
        "/b": {"name": "resource-1"},
        "/root/.ollama/models": {"name": "resource-2", "readOnly": True},
    }
    fetcher = pod["initContainers"][0]
    assert fetcher["image"] == "fetcher:1"
    assert fetcher["resources"]["limits"] == {"memory": "1Gi"}
    assert set(mounts(fetcher)) == {"/etc/nosana-fetch", "/resources/0", "/resources/1", "/resources/2"}


def test_nested_and_equal_targets_share_a_volume() -> None:
    body, pod = parts(made(hf("/m/x/1_Pooling"), hf("/m/x"), hf("/m/x/"), hf("/m/xy")))
    assert [r["folder"] for r in body["resources"]] == [
        "/resources/0", "/resources/0", "/resources/0/1_Pooling", "/resources/1",
    ]  # fmt: skip
    assert set(mounts(pod["containers"][0])) == {"/dev/shm", "/m/x", "/m/xy"}
    assert [volume["name"] for volume in pod["volumes"]] == ["shm", "fetch", "resource-0", "resource-1"]


def test_a_writable_folder_in_a_read_only_one_is_mounted_by_itself() -> None:
    body, pod = parts(made(s3("/m"), s3("/m/out/put", allowWrite=True)))
    found = mounts(pod["containers"][0])
    assert found["/m"] == {"name": "resource-0", "readOnly": True}
    assert found["/m/out/put"] == {"name": "resource-0", "subPath": "out/put"}
    assert "/resources/0/out/put" in body["folders"]


MAKE = {"type": "container/create-volume", "id": "make", "args": {"name": "v"}}


def with_volume(dest: str, *resources: dict[str, Any]) -> JobContext:
    uses = op("x", resources=list(resources), volumes=[{"name": "v", "dest": dest}])
    return replace(context(uses, MAKE), fetching=Fetching(image="fetcher:1"))


def test_a_volume_may_lie_in_a_target() -> None:
    body, pod = parts(with_volume("/m/cache", hf("/m")))
    assert body["folders"] == ["/resources/0", "/resources/0/cache"]
    assert {"/m", "/m/cache"} <= set(mounts(pod["containers"][0]))


def test_a_volume_and_a_target_cannot_be_one_folder() -> None:
    (problem,) = unsupported(with_volume("/m/", hf("/m")))
    assert problem.path == "ops[0].args.resources[0].target"
    assert "the op mounts a volume" in str(problem)


def test_an_op_without_resources_pays_nothing() -> None:
    (pod,) = build_op_objects(made(), 0)
    assert "initContainers" not in pod["spec"]
    (pod,) = build_op_objects(made("__remove-if-empty__"), 0)  # type: ignore[arg-type]
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["shm"]


@pytest.mark.parametrize(
    ("resource", "path", "said"),
    [
        (hf("models"), "target", "absolute path"),
        (hf("/a/../../etc"), "target", "without .."),
        (hf("/"), "target", "nothing can be mounted"),
        (hf("/proc/x"), "target", "nothing can be mounted"),
        (hf("//dev"), "target", "nothing can be mounted"),
        (hf("/a", files=["ok", "../evil"]), "files[1]", "not a file below the target"),
        (hf("/a", files=["/etc/passwd"]), "files[0]", "not a file below the target"),
        (hf("/a", repo="a/b/c"), "repo", "write it as owner/name"),
        (hf("/a", repo="../x"), "repo", "write it as owner/name"),
        (s3("/a", files=["x/../y"]), "files[0]", "not a file below the target"),
        (s3("/a", url="ftp://x/y"), "url", "not the address of a bucket"),
        (s3("/a", url="https://me:pw@x/y"), "url", "credentials in IAM"),
        ({"type": "S3", "target": "/a"}, None, "names no place"),
        (
            {"type": "S3", "target": "/a", "buckets": [{"url": "s3://b", "files": [".."]}]},
            "buckets[0].files[0]",
            "not a file below the target",
        ),
    ],
)
def test_what_is_refused(resource: dict[str, Any], path: str | None, said: str) -> None:
    (problem,) = unsupported(made(resource))
    assert problem.path == "ops[0].args.resources[0]" + (f".{path}" if path else "")
    assert said in str(problem)
    assert "pw" not in str(problem)


def test_literals_are_judged_when_they_are_known() -> None:
    ctx = made(hf("%%global.variables.T%%", files=["%%global.variables.T%%"]))
    assert unsupported(ctx) == []


def test_without_an_image_resources_are_refused() -> None:
    (problem,) = unsupported(replace(made(hf("/a")), fetching=Fetching()))
    assert "set fetch.image in the operator's settings" in str(problem)


def test_same_job_same_objects() -> None:
    ctx = made(hf("/m"), s3("/m/x"))
    assert build_op_objects(ctx, 0) == build_op_objects(ctx, 0)


folders = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p))


@settings(deadline=None)
@given(st.lists(st.tuples(folders, st.booleans()), min_size=1, max_size=6))
def test_every_target_shows_the_folder_that_is_filled_for_it(asked: list[tuple[str, bool]]) -> None:
    body, pod = parts(made(*(s3(target, allowWrite=write) for target, write in asked)))
    filled = {
        volume["name"]: mount
        for volume in pod["volumes"]
        for mount in pod["initContainers"][0]["volumeMounts"]
        if mount["name"] == volume["name"]
    }
    shown = {PurePosixPath(m["mountPath"]): m for m in pod["containers"][0]["volumeMounts"]}
    assert len(shown) == len(pod["containers"][0]["volumeMounts"])
    writable = {target: any(write for other, write in asked if other == target) for target, _ in asked}
    found = set()
    for target in writable:
        path = PurePosixPath(target)
        at = next(up for up in (path, *path.parents) if up in shown)
        mount = shown[at]
        root = PurePosixPath(filled[mount["name"]]["mountPath"])
        found.add(str(root / mount.get("subPath", "") / path.relative_to(at)))
        assert mount.get("readOnly", False) is not writable[target]
    assert found == {resource["folder"] for resource in body["resources"]}
