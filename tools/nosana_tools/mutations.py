"""`python -m nosana_tools.mutations`: do the tests notice when the code that pays and decides is wrong?

A seeded sample of one-place changes (cosmic-ray's operators) is applied to a copy of the repository, one at a time.
For each the tests of its module run, the fast ones first; a change that they do not notice *survives* and is
printed as a diff. Exits with 1 when less than the goal is noticed.

What is not a fault that a test could notice is not drawn: annotations and docstrings, the text and level of log
lines, numbers from 2 on, which are tuning (time-outs, sizes, pauses) and whose bounds have tests of their own, `==` in
place of `is`, and whether dataclasses are frozen.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "operator/nosana_operator"
GOAL: Final = 0.95
COUNT: Final = 200
SECONDS: Final = 300
"""A run of tests that takes longer has noticed: the change made an endless loop."""

TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "market/host": (
        "tests/market/test_decide.py tests/market/test_departures.py tests/market/test_offers.py",
        "tests/market/test_drain.py tests/market/test_lives.py tests/market/test_odd_runs.py",
        "tests/market/test_queue_lives.py tests/market/test_shared_nodes.py tests/market/test_both_rooms.py",
    ),
    "market/runs": (
        "tests/market/test_on_chain.py tests/market/test_run_decide.py tests/market/test_verify_and_run_status.py",
        "tests/market/test_pins.py tests/market/test_payment.py tests/market/test_confidential.py",
        "tests/market/test_overdue_runs.py tests/market/test_lives.py tests/market/test_outages.py",
    ),
    "market/keys": (
        "tests/market/test_wallet_secrets.py tests/market/test_foreign_use.py tests/market/test_polls.py",
        "tests/market/test_shared_keys.py tests/market/test_lives.py",
    ),
    "market": (
        "tests/market/test_intents.py tests/market/test_decide.py tests/market/test_on_chain.py",
        "tests/market/test_payment.py tests/market/test_lives.py",
        "tests/market/test_queue_lives.py tests/market/test_odd_runs.py",
    ),
    "jobs/decision": (
        "tests/jobs/test_decide.py tests/jobs/test_health.py tests/jobs/test_attempts.py "
        "tests/jobs/test_start_limits.py tests/jobs/test_aliases.py tests/jobs/test_captures.py "
        "tests/jobs/test_job_events.py",
        "tests/jobs/test_life.py tests/jobs/test_flows.py tests/jobs/test_forced_end.py",
    ),
    "jobs": (
        "tests/jobs/test_logs.py tests/jobs/test_job_result.py tests/jobs/test_observe.py "
        "tests/jobs/test_definitions.py tests/jobs/test_fetch_progress.py tests/jobs/test_policies.py "
        "tests/jobs/test_log_lines.py tests/jobs/test_start_steps.py tests/jobs/test_leftovers.py",
        "tests/jobs/test_life.py tests/jobs/test_health.py tests/jobs/test_captures.py "
        "tests/jobs/test_forced_end.py tests/jobs/test_attempts.py tests/market/test_confidential.py",
    ),
    "chain/sender.py": ("tests/chain/test_sender.py",),
    "definition": ("tests/definition", "tests/workload tests/cli"),
}
"""Below the package: the tests that judge a change, in the order in which they run."""

_SMALL: Final = 2
"""Numbers below are counts, signs and places, from here on they are tuning."""
Verdict = Literal["killed", "survived", "invalid"]


@dataclass(frozen=True)
class Mutation:
    """One change: the `occurrence`-th place at which the operator applies in a file."""

    file: str
    operator: str
    occurrence: int


def targets_of(file: str) -> tuple[str, ...]:
    """The tests of a file (a path below the package), by its most specific entry in `TARGETS`."""
    fitting = [name for name in TARGETS if file == name or file.startswith(f"{name}/")]
    return TARGETS[max(fitting, key=len)]


def mutations(source: str, file: str) -> Iterator[Mutation]:
    """Every change that cosmic-ray's operators offer for a source text."""
    nodes = list(ast_nodes(get_ast(source)))
    provider = OperatorProvider()
    for name in provider:
        if name.startswith("Variable"):  # needs to be told which variables
            continue
        operator = provider[name]()
        places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        yield from (Mutation(file, name, occurrence) for occurrence in range(places))


def mutated(source: str, mutation: Mutation) -> str | None:
    """The changed text; None when nothing that a test could notice has changed."""
    changed = mutate_code(source, OperatorProvider()[mutation.operator](), mutation.occurrence)
    if changed is None:
        return None
    try:
        return None if _essence(changed) == _essence(source) else str(changed)
    except SyntaxError:
        return None


def _essence(source: str) -> str:
    return ast.dump(_Essence().visit(ast.parse(source)))


class _Essence(ast.NodeTransformer):
    """Leaves out what tests need not notice."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        called = node.value.func if isinstance(node.value, ast.Call) else None
        is_log = isinstance(called, ast.Attribute) and getattr(called.value, "id", "") == "log"
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_log or is_text else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        fixed = node.arg in ("frozen", "slots")
        return ast.keyword(node.arg, ast.Constant(True)) if fixed else self.generic_visit(node)

    def visit_Is(self, node: ast.Is) -> ast.AST:
        return ast.Eq()

    def visit_IsNot(self, node: ast.IsNot) -> ast.AST:
        return ast.NotEq()

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= _SMALL:
            return ast.Constant("tuning")
        return node


@dataclass(frozen=True)
class Change:
    """A mutation and the text of its file before and after."""

    mutation: Mutation
    before: str
    after: str

    @property
    def lines(self) -> frozenset[tuple[str, int]]:
        """The lines that differ, with their file."""
        before, after = self.before.splitlines(), self.after.splitlines()
        blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        changed = (range(a, max(b, a + 1)) for tag, a, b, _, _ in blocks if tag != "equal")
        return frozenset((self.mutation.file, line) for each in changed for line in each)

    def diff(self) -> str:
        """The change as a diff without context."""
        texts, file = (self.before.splitlines(), self.after.splitlines()), self.mutation.file
        return "\n".join([*difflib.unified_diff(*texts, file, file, lineterm="", n=0)][1:])


def sample(seed: int, root: Path = ROOT) -> Iterator[Change]:
    """Changes of the targets in a random order that follows from the seed; each line is changed once at most."""
    package = root / PACKAGE
    files = {
        str(file.relative_to(package)): file.read_text()
        for target in sorted(TARGETS)
        for file in ([package / target] if target.endswith(".py") else (package / target).rglob("*.py"))
    }
    found = [mutation for file, source in sorted(files.items()) for mutation in mutations(source, file)]
    random.Random(seed).shuffle(found)
    seen: set[tuple[str, int]] = set()
    for mutation in found:
        after = mutated(files[mutation.file], mutation)
        if after is None:
            continue
        change = Change(mutation, files[mutation.file], after)
        if not change.lines & seen:
            seen |= change.lines
            yield change


def judge(copy: Path, change: Change) -> Verdict:
    """Run the tests of a changed module in a copy of the repository."""
    file = copy / PACKAGE / change.mutation.file
    file.write_text(change.after)
    try:
        for tests in targets_of(change.mutation.file):
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
            try:
                done = subprocess.run(
                    [*command, "-m", "not contract and not cluster and not soak"],
                    cwd=copy,
                    capture_output=True,
                    timeout=SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "killed"
            if done.returncode == 1:
                return "killed"
            if done.returncode != 0:
                return "invalid"  # It cannot even be imported, which is no feat of the tests.
        return "survived"
    finally:
        file.write_text(change.before)


def run(seed: int, count: int, workers: int) -> tuple[int, list[str]]:
    """Judge `count` mutations; how many were killed, and the survivors as diffs."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copies.put(_copy(Path(folder) / str(number)))
        drawn = sample(seed)
        verdicts: list[tuple[Verdict, Change]] = []

        def one(change: Change) -> tuple[Verdict, Change]:
            copy = copies.get()
            try:
                verdict = judge(copy, change)
            finally:
                copies.put(copy)
            mutation = change.mutation
            print(f"{verdict}: {mutation.file} {mutation.operator} {mutation.occurrence}", flush=True)
            return verdict, change

        with ThreadPoolExecutor(workers) as pool:
            while batch := list(islice(drawn, count - len(verdicts))):
                verdicts += [each for each in pool.map(one, batch) if each[0] != "invalid"]
    survivors = [change.diff() for verdict, change in verdicts if verdict == "survived"]
    return len(verdicts) - len(survivors), survivors


def _copy(folder: Path) -> Path:
    """The files that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each verdict, then the survivors and the sum; 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    killed, survivors = run(options.seed, options.count, options.workers)
    tried = killed + len(survivors)
    for text in survivors:
        print(f"\nsurvived:\n{text}")
    rate = f"{killed / max(tried, 1):.1%}, goal {GOAL:.0%}"
    print(f"\nseed {options.seed}: {killed} of {tried} mutations killed ({rate})")
    return 0 if tried and killed >= GOAL * tried else 1


if __name__ == "__main__":
    sys.exit(main())
