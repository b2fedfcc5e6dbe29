"""The input of every builder: a NosanaJob, its definition and the operator's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from nosana_operator.api import Exposure, NosanaJobSpec
from nosana_operator.api.placement import NodeSettings
from nosana_operator.definition import Definition, Operation, RunArgs
from nosana_operator.definition.literals import Place, Reference, ResultValue, references, texts
from nosana_operator.settings_group import HttpUrl, SettingsGroup

DEFAULT_MIRRORS: Final = {"s3://nos-ai-models-qllsn32u": "https://models.nosana.io"}
"""Nosana's own models, with the address that its nodes use instead (docs/protocol/node.md#resources-on-the-node)."""


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?", text):
        raise ValueError("a quantity like 10Gi is needed")
    return text


class Fetching(SettingsGroup):
    """How the `resources` of definitions are fetched."""

    image: str | None = None
    """The image of nosana-fetch. Unset: definitions with resources are refused."""
    mirrors: Mapping[str, HttpUrl] = {}
    """Prefixes of URLs (https://huggingface.co, https://registry.ollama.ai, s3://bucket, …), and what is requested
    in their place. A mirror sees the credentials of the jobs that use it. Empty: only Nosana's own models are
    rewritten, as its nodes do (docs/protocol/node.md#resources-on-the-node)."""


class Storage(SettingsGroup):
    """The claims that `container/create-volume` ops make."""

    storage_class: str | None = None
    """Unset: the cluster's default class."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """ReadWriteMany lets a job's ops run on several nodes; the class has to offer it."""
    size: Annotated[str, AfterValidator(_size)] = "10Gi"
    """The size of each claim: definitions cannot state one."""
    job_size: Annotated[str, AfterValidator(_size)] = "40Gi"
    """What all claims of one job may have together. The operator refuses a definition with more volumes than that
    holds, because a stranger's volumes are in no slot's resources. Smaller than `size`: no volumes at all."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """A NosanaJob and its definition, frozen: the same context always gives the same objects."""

    name: str
    namespace: str
    uid: str
    spec: NosanaJobSpec
    definition: Definition
    cluster: str
    """The cluster's name from the settings: the host of a private job."""
    default_exposure: Exposure = field(default_factory=Exposure)
    """From the settings: the defaults for fields that the job's own exposure leaves out."""
    cluster_domain: str = "cluster.local"
    """From the settings: the domain below which the cluster's DNS serves the names of Services."""
    fetching: Fetching = field(default_factory=Fetching)
    """From the settings; without an image this operator cannot fetch resources."""
    trusted_runtime_class: str | None = None
    """From the settings; None: this operator does not serve `trusted_execution_env`."""
    nodes: NodeSettings = field(default_factory=NodeSettings)
    """From the settings: the nodes that ops run on."""
    storage: Storage = field(default_factory=Storage)
    """From the settings."""
    results: Mapping[str, Mapping[str, ResultValue]] = field(default_factory=dict)
    """Op id → its captured `results`, for ops that have ended."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Op id → the address of its pod, for ops whose pod has one."""

    def runtime_class(self, args: RunArgs) -> str | None:
        """The RuntimeClass of an op; as on Nosana's nodes, the host chooses it for a trusted op."""
        return self.trusted_runtime_class if args.trusted_execution_env else self.spec.runtime_class_name

    @property
    def job_address(self) -> str:
        """`global.job` and NOSANA_ID: the job account of a run; a private job's uid.

        (docs/architecture.md#private-jobs)
        """
        return self.spec.run.job if self.spec.run else self.uid

    @property
    def host(self) -> str:
        """`global.host`: the key that holds the run; the cluster's name for a private job."""
        return self.spec.run.node if self.spec.run else self.cluster

    @property
    def project(self) -> str:
        """`global.project`: the job's owner on chain; the namespace of a private job."""
        return self.spec.run.project if self.spec.run else self.namespace

    @property
    def domain(self) -> str | None:
        """The domain below which exposed ports get host names; None: they are reachable inside the cluster only."""
        return self.spec.exposure.domain or self.default_exposure.domain

    @property
    def ingress_class_name(self) -> str | None:
        """The class of the Ingresses; None: the cluster's default."""
        return self.spec.exposure.ingress_class_name or self.default_exposure.ingress_class_name

    def op(self, index: int) -> Operation:
        """The op with that index."""
        return self.definition.ops[index]

    def uses_gpu(self, args: RunArgs) -> bool:
        """Whether an op gets GPUs; it cannot refuse those of `global.gpu` (docs/protocol/node.md#gpus-of-an-op)."""
        defaults = self.definition.global_
        return bool(args.gpu) or bool(defaults and defaults.gpu)

    @property
    def has_aliases(self) -> bool:
        """Whether any op of the job has an alias."""
        return any(isinstance(op.args, RunArgs) and op.args.aliases for op in self.definition.ops)

    def runs_beside(self, index: int) -> int:
        """How many containers the stage of that op runs at once, this one included."""
        group = self.op(index).group
        return sum(1 for op in self.definition.ops if op.group == group and isinstance(op.args, RunArgs))


def literals(op: Operation) -> Iterator[tuple[Place, Reference]]:
    """Every literal in the arguments of an op; the place starts at `args`."""
    for place, text in texts(op.args.model_dump(by_alias=True, exclude_unset=True), ("args",)):
        for reference in references(text):
            yield place, reference
