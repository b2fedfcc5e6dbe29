"""Decides which aliases of ops have to be published (`workload/aliases.py`). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nosana_operator.api import OpStatus
from nosana_operator.definition import DefinitionError
from nosana_operator.jobs.decision.effects import PublishAliases
from nosana_operator.jobs.decision.ops import OVER
from nosana_operator.jobs.decision.view import JobView, Loaded
from nosana_operator.workload import aliases, build_alias_slice, run_args


def changed_aliases(view: JobView, ops: Sequence[OpStatus]) -> Iterator[PublishAliases]:
    """Each op with aliases whose current address differs from the one that this process published.

    This process does not know what an earlier one published, so it publishes each started op once more.
    """
    definition = view.definition
    if not isinstance(definition, Loaded) or not definition.context.has_aliases:
        return
    for op in ops:
        pod = view.pods.get(op.index)
        if op.state == "Waiting" and pod is None:
            continue
        address = pod.address if pod is not None and pod.ended is None and op.state not in OVER else None
        if op.index in view.published_aliases and view.published_aliases[op.index] == address:
            continue
        try:
            args = run_args(definition.context, op.index)
        except (DefinitionError, TypeError):
            continue  # The op never had a pod.
        if aliases(args):
            yield PublishAliases(
                op.index, build_alias_slice(definition.context, op.index, args, address), address
            )
