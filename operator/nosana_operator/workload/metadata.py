"""Names, labels and owner references of a job's children."""

from __future__ import annotations

from typing import Any

from nosana_operator.api import (
    API_VERSION,
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_MARKET,
    LABEL_OP,
    LABEL_RUN,
)
from nosana_operator.workload.context import JobContext

Body = dict[str, Any]
"""A Kubernetes object as plain data."""


def op_name(ctx: JobContext, op_index: int) -> str:
    """`<job>-<opIndex>`: the name of the op's first pod and Ingress, and its host name for the job's other ops."""
    return f"{ctx.name}-{op_index}"


def pod_name(ctx: JobContext, op_index: int, attempt: int = 0) -> str:
    """The pod's name. Equal ops and attempts have equal names, so a pod cannot be created twice."""
    return op_name(ctx, op_index) + (f"-r{attempt}" if attempt else "")


def job_labels(ctx: JobContext) -> dict[str, str]:
    """The labels of every child: its job, and for a market's job the addresses on chain."""
    labels = {
        "app.kubernetes.io/name": "nosana-job",
        "app.kubernetes.io/instance": ctx.name,
        "app.kubernetes.io/managed-by": "nosana-operator",
        LABEL_JOB: ctx.name,
        LABEL_JOB_UID: ctx.uid,
    }
    if ctx.spec.run:
        labels[LABEL_MARKET] = ctx.spec.run.market
        labels[LABEL_CHAIN_JOB] = ctx.spec.run.job
        labels[LABEL_RUN] = ctx.spec.run.run
    return labels


def op_selector(ctx: JobContext, op_index: int) -> dict[str, str]:
    """The selector of one op's pods. It has the job's uid: another job may get the same name later."""
    return {LABEL_JOB_UID: ctx.uid, LABEL_OP: str(op_index)}


def make_op_metadata(ctx: JobContext, name: str, op_index: int) -> Body:
    """The metadata of an object that belongs to one op."""
    metadata = make_job_metadata(ctx, name)
    metadata["labels"][LABEL_OP] = str(op_index)
    return metadata


def make_job_metadata(ctx: JobContext, name: str) -> Body:
    """The metadata of an object that belongs to the whole job."""
    return {
        "name": name,
        "namespace": ctx.namespace,
        "labels": job_labels(ctx),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": JOB_KIND,
                "name": ctx.name,
                "uid": ctx.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
