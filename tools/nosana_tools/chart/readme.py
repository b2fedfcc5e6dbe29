"""The chart's README, from the comments of values.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from nosana_tools.chart.values import Value

_HEAD: Final = """\
# nosana-operator

Installs the Nosana operator, which makes a Kubernetes cluster a host on the Nosana GPU marketplace. Kubernetes
1.31 or newer, Helm 3.

```sh
helm install nosana-operator charts/nosana-operator --namespace nosana-system --create-namespace
helm test nosana-operator --namespace nosana-system --logs
```

It says what to do next. Without Helm: `kubectl apply --server-side -f manifests/crds.yaml`, then
`-f manifests/operator.yaml`, which is this chart with its defaults.

## What it creates
The operator (Deployment, service account, roles, settings, disruption budget, network policy), the two CRDs, the
namespace `nosana-jobs` for markets' jobs, and two admission policies: only the operator may declare a NosanaJob a
market's, and only the operator may create pods where markets' jobs run. Wallets and other credentials are existing
Secrets; the chart creates none. Every pod of the chart passes Pod Security `restricted`, so that its
namespace may enforce it; namespaces of jobs enforce `baseline`.

## Rights
The operator reads nodes, pods and storage classes of the whole cluster, because slots are what all pods leave free,
and the Service of the cluster's DNS. With `watchNamespaces` all its other rights are limited to those namespaces.
Users of a namespace get rights through Kubernetes' own roles: `view` reads NosanaJobs, `edit` creates them, `admin`
offers GPUs in markets, too.

## Markets
`markets` creates NosanaMarkets. Helm looks up each kind before it creates anything, so a first install leaves them
out and says so; the same command with `upgrade` creates them. To change one, change the value. A NosanaMarket that
you remove from the list stays, because it holds money; `kubectl delete` makes it leave its queue and settle its runs,
and then removes it.

## Upgrade
`helm upgrade` replaces the operator and, unlike a `crds/` folder, the CRDs too. It touches no job: the old operator
releases its Lease, and the new one continues from what the cluster and the chain hold.

## Uninstall
`helm uninstall` first takes all keys out of their queues (`leave`), and fails when that is not possible: `kubectl
logs` of the Job `nosana-operator-leave` says why, and `--no-hooks` uninstalls all the same. Then it removes the
operator. What stays:

- the CRDs (`crds.keep`), all NosanaJobs and all NosanaMarkets, those of `markets` too;
- the job namespaces;
- the pods of running jobs. They continue, but nobody ends them at their time, and nobody settles their runs.

An operator that is installed again continues with all of them; its keys join the queues again some minutes later,
when the time to leave is over.

To remove everything, begin while the operator runs: delete the NosanaMarkets and NosanaJobs, wait until they are gone
(runs are settled first), uninstall, then delete the job namespaces and the CRDs. NosanaJobs, NosanaMarkets and pods
of jobs have finalizers that only an operator removes; without one, a CRD that you delete stays.

## Values
"""


def readme(values: Sequence[Value]) -> str:
    """The README as Markdown."""
    rows = "\n".join(_rows(values))
    return f"{_HEAD}| key | default | |\n|---|---|---|\n{rows}\n"


def _rows(values: Sequence[Value]) -> Iterator[str]:
    groups = {value.path[:-1] for value in values}
    for value in values:
        if value.description:
            name = ".".join(value.path)
            # The keys below have their own rows.
            default = "" if value.path in groups else f"`{_text(value.default)}`"
            yield f"| `{name}` | {default} | {value.description.replace('|', chr(92) + '|')} |"


def _text(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)
