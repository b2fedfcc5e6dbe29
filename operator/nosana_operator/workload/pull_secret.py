"""An op's login for the registry of its image: a Secret that the kubelet uses for the pull.

(docs/protocol/job-definition.md#run-arguments)
"""

from __future__ import annotations

import base64
import json
from typing import Any

from nosana_operator.definition import RunArgs
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.image import DOCKER_HUB, full_reference, split_registry
from nosana_operator.workload.metadata import Body, make_op_metadata, op_name

_HUB = "https://index.docker.io/v1/"


def registry_of(image: str) -> str:
    """The registry of an image, in the form that a login is stored under; Docker Hub when it names none."""
    registry, _ = split_registry(image)
    return _HUB if registry == DOCKER_HUB else registry


def has_login(args: RunArgs) -> bool:
    """Whether the op has a login for its image."""
    login = args.authentication.docker if args.authentication else None
    return login is not None and bool(login.username or login.password)


def pull_secret_name(ctx: JobContext, op_index: int) -> str:
    """The name of the Secret with the login; the Secret is deleted when its op has ended."""
    return f"{op_name(ctx, op_index)}-pull"


def build_pull_secret(ctx: JobContext, op_index: int, args: RunArgs) -> list[Body]:
    """The Secret with the login; none for an op without one.

    As on Nosana's node, the login applies to the registry of the op's image; its `server` is ignored.
    """
    login = args.authentication.docker if args.authentication else None
    if login is None or not has_login(args):
        return []
    username, password = login.username or "", login.password or ""
    entry = {
        "username": username,
        "password": password,
        "auth": base64.b64encode(f"{username}:{password}".encode()).decode(),
        **({"email": login.email} if login.email else {}),
    }
    config = json.dumps({"auths": {registry_of(args.image): entry}})
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": make_op_metadata(ctx, pull_secret_name(ctx, op_index), op_index),
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        }
    ]


def make_pull_secrets(ctx: JobContext, op_index: int, args: RunArgs) -> dict[str, Any]:
    """The `imagePullSecrets` of a pod; empty for an op without a login."""
    return {"imagePullSecrets": [{"name": pull_secret_name(ctx, op_index)}]} if has_login(args) else {}


def image_pull_policy(ctx: JobContext, args: RunArgs) -> str:
    """Whether the kubelet asks the registry although the node has the image.

    It does for every job of a market: the node may have the image from the pull of another poster who had a login,
    and the registry decides who may use it. A private job's image is asked for behind a login, and for a tag that
    moves by convention.
    """
    moves = full_reference(args.image).endswith(":latest")
    return "Always" if ctx.spec.run is not None or moves or has_login(args) else "IfNotPresent"
