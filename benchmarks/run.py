"""`python -m benchmarks.run [NAME…]`: measure, write benchmarks/out/NAME.json, print goal and figure.

A benchmark is a module here with `NAME`, `GOAL` (figure → number; a most, or a least when its name is in
`AT_LEAST`) and `run()`, which gives the figures. What cannot be measured on this machine raises `Skip`.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.skip import Skip
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OUT = HERE / "out"
NO_BENCHMARKS = ("run", "skip", "spans")


def benchmarks() -> dict[str, ModuleType]:
    """All benchmarks by name, in the order of their names."""
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NO_BENCHMARKS)
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return {module.NAME: module for module in modules}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def report(module: ModuleType, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is written: a ratio above 1 is better than the goal."""
    least = getattr(module, "AT_LEAST", ())
    ratios = {
        name: round(figure / goal if name in least else goal / figure, 2)
        for name, goal in module.GOAL.items()
        if (figure := measured[name])
    }
    return {
        "name": module.NAME,
        "machine": machine(),
        "goal": dict(module.GOAL),
        "measured": dict(measured),
        "ratios": ratios,
    }


def reached(module: ModuleType, name: str, figure: float) -> bool:
    """Whether a figure reaches the benchmark's goal of that name."""
    goal = module.GOAL[name]
    return bool(figure >= goal if name in getattr(module, "AT_LEAST", ()) else figure <= goal)


def table(reports: list[dict[str, Any]], modules: Mapping[str, ModuleType]) -> Table:
    """Goal and figure side by side."""
    shown = Table("benchmark", "figure", "goal", "measured", "")
    for each in reports:
        least = getattr(modules[each["name"]], "AT_LEAST", ())
        for name, goal in each["goal"].items():
            figure = each["measured"][name]
            good = reached(modules[each["name"]], name, figure)
            sign = "≥" if name in least else "≤"
            verdict = "[green]reached[/]" if good else "[red]missed[/]"
            shown.add_row(each["name"], name, f"{sign} {goal:g}", f"{figure:g}", verdict)
    return shown


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all. Returns 1 when a goal is missed, 2 when there is no benchmark of a name."""
    console = Console()
    known = benchmarks()
    if unknown := [name for name in names if name not in known]:
        console.print(f"no benchmark {', '.join(unknown)}; the benchmarks are: {', '.join(known)}")
        return 2
    OUT.mkdir(exist_ok=True)
    reports = []
    for name in names or known:
        console.print(f"» {name}: {(known[name].__doc__ or '').splitlines()[0]}")
        try:
            made = report(known[name], known[name].run())
        except Skip as reason:
            console.print(f"  left out: {reason}")
            continue
        (OUT / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
        reports.append(made)
    console.print(table(reports, known))
    missed = [
        f"{each['name']}.{name}"
        for each in reports
        for name in each["goal"]
        if not reached(known[each["name"]], name, each["measured"][name])
    ]
    if missed:
        console.print(f"[red]goals missed: {', '.join(missed)}[/]")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
