"""Stores the definition of a confidential job: in a Secret that its NosanaJob owns, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from nosana_operator.api.names import API_VERSION, GROUP, JOB_KIND, LABEL_JOB, LABEL_JOB_UID

DEFINITION_TYPE: Final = f"{GROUP}/definition"
"""`type` of the Secret."""
DEFINITION_KEY: Final = "definition.json"


def definition_secret_name(job: str) -> str:
    """The name of the Secret for a job."""
    return f"{job}-definition"


def definition_secret(job: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """The Secret with a NosanaJob's definition; `data` is the poster's document."""
    meta = job["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": DEFINITION_TYPE,
        "metadata": {
            "name": definition_secret_name(meta["name"]),
            "namespace": meta["namespace"],
            "labels": {LABEL_JOB: meta["name"], LABEL_JOB_UID: meta["uid"]},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": JOB_KIND,
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "data": {DEFINITION_KEY: base64.b64encode(data).decode()},
    }
