"""Captured `results` of ops: which logs have to be searched, and where the values are kept. Pure.

An op's log is searched when the op has ended and before its end is written to the status. Later stages use
the values in literals. Small values are stored in the status. After a restart of the operator, larger ones
are captured again from the log of the op's pod, which the finalizer keeps until the result is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace as altered

from nosana_operator.api import OpStatus
from nosana_operator.api.job import MAX_RESULT_TEXT
from nosana_operator.definition import Definition
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.results import MAX_RESULT_BYTES
from nosana_operator.jobs.decision.effects import CaptureResults
from nosana_operator.jobs.decision.ops import OVER, Ops
from nosana_operator.jobs.decision.view import JobView, Loaded, Loading

Values = Mapping[str, ResultValue]
"""The results of one op by name."""


def captured(ops: Sequence[OpStatus], read: Mapping[int, Values]) -> dict[int, Values]:
    """The results by op index: from the status, replaced by what this process has captured."""
    stored = {
        op.index: {name: json.loads(text) for name, text in op.results.items()}
        for op in ops
        if op.results is not None
    }
    return {**stored, **read}


def to_capture(view: JobView, ops: Ops) -> tuple[CaptureResults, ...]:
    """The ops that have ended and whose results are not captured yet."""
    if not isinstance(view.definition, Loaded) or (view.deleting and not view.is_market_job):
        return ()
    definition = view.definition.context.definition
    share = MAX_RESULT_BYTES // max(1, _capturing_ops(definition))
    pods = (*view.earlier, *view.pods.values())
    return tuple(
        CaptureResults(op, tuple(pod for pod in pods if pod.op_index == op.index), patterns, share)
        for op in ops
        if op.state in OVER and op.started_at is not None and op.index not in view.results
        if (patterns := definition.ops[op.index].results)
    )


def may_have_results(view: JobView, ops: Ops) -> bool:
    """Whether ended ops may have results to capture, because the definition is just being loaded again.

    That is so for a moment after a restart of the operator. A load that has failed once is not waited for.
    """
    return (
        isinstance(view.definition, Loading)
        and view.definition.problem is None
        and not view.result
        and not (view.deleting and not view.is_market_job)
        and any(op.started_at is not None and op.index not in view.results for op in ops)
    )


def with_known_results(view: JobView) -> JobView:
    """The view with captured results and pod addresses added to the values of literals."""
    definition = view.definition
    if not isinstance(definition, Loaded):
        return view
    ids = [op.id for op in definition.context.definition.ops]
    results = {ids[index]: values for index, values in view.results.items()}
    addresses = {ids[index]: pod.address for index, pod in view.pods.items() if pod.address}
    if not results and not addresses:
        return view
    context = altered(definition.context, results=results, addresses=addresses)
    return altered(view, definition=altered(definition, context=context))


def with_results(view: JobView, ops: Ops) -> Ops:
    """The ops with their results, where these are small enough for the status."""
    if not view.results:
        return ops
    room = MAX_RESULT_TEXT // len(view.results)
    return tuple(
        op.model_copy(update={"results": _as_text(view.results[op.index], room)})
        if op.index in view.results and op.state in OVER
        else op
        for op in ops
    )


def _as_text(values: Values, room: int) -> dict[str, str] | None:
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    size = sum(len(name.encode()) + len(text.encode("utf-8", "replace")) for name, text in texts.items())
    return texts if size <= room else None


def _capturing_ops(definition: Definition) -> int:
    return sum(1 for op in definition.ops if op.results)
