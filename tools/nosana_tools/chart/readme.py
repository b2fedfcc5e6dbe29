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

## What it makes
The operator (Deployment, service account, roles, settings, disruption budget, network policy), the two CRDs, the
namespace `nosana-jobs` for markets' jobs, and two admission policies: only the operator says that a NosanaJob
is a market's, and only the operator makes pods where markets' jobs run. Wallets and other credentials are
Secrets that exist; the chart makes none. Every pod of the chart passes Pod Security `restricted`, so that its
namespace may enforce it; namespaces of jobs enforce `baseline`.

## Rights
The operator reads nodes, pods and storage classes of the whole cluster: what a slot is, follows from what is left
of them. Everything else it may do only in `watchNamespaces`, where they are given. Namespace users get rights on
NosanaJobs with Kubernetes' own roles: `view` reads them, `edit` makes them, `admin` offers GPUs in markets, too.

## Markets
`markets` makes NosanaMarkets. Helm looks up each kind before it makes anything, so that a first install leaves
them out, says so, and the same command with `upgrade` makes them. To change one, change the value. One that is
taken out of the list stays, as it holds money; `kubectl delete` makes it leave its queue, settle its runs, and go.

## Upgrade
`helm upgrade` replaces the operator and, other than with a `crds/` folder, the CRDs. Jobs are not touched: the
old one hands over, and the new one goes on with what stands in the cluster and on chain.

## Uninstall
`helm uninstall` first leaves all queues (`leave`), and fails when that cannot be done: `kubectl logs` of the Job
`nosana-operator-leave` says why, and `--no-hooks` goes on all the same. Then the operator goes. What stays:

- the CRDs (`crds.keep`), all NosanaJobs and all NosanaMarkets, those of `markets` too;
- the job namespaces;
- the pods of jobs that run. They run on, but nobody ends them at their time, and nobody is paid.

Install it again and it goes on with all of them; it stands in the queues again when the time for which it was told
to leave is over, some minutes later.

To remove everything, begin while the operator is there: delete the NosanaMarkets and NosanaJobs, wait until they are
gone (runs are settled first), uninstall, then delete the job namespaces and the CRDs. NosanaJobs, NosanaMarkets and
pods of jobs have finalizers that only an operator takes away; a CRD that is deleted without one waits for ever.

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
            # What stands below has rows of its own.
            default = "" if value.path in groups else f"`{_text(value.default)}`"
            yield f"| `{name}` | {default} | {value.description.replace('|', chr(92) + '|')} |"


def _text(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)
