"""The README's first command, as it stands there; minutes, so it is part of `make soak`."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().split("## See it work\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("install", ["", " INSTALL=helm"])
def test_the_demo_runs_as_the_readme_says(install: str) -> None:
    (command,) = re.findall(r"^```sh\n(.*?)^```$", SECTION, flags=re.M | re.S)
    if install:
        assert f"`make demo{install}`" in SECTION
    done = subprocess.run(
        ["bash", "-euc", command.rstrip() + install],
        cwd=ROOT,
        env={**os.environ, "PYTHON": os.environ.get("PYTHON", "python3")},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for title in ("hello-world", "count-stages", "jupyter-gpu"):
        assert re.search(rf"posted {title}\.json: job ", done.stdout)
        (panel,) = re.findall(rf"╭─ {title} ─.*?╰", done.stdout, flags=re.S)
        assert "on chain   Done" in panel
        assert re.search(r"earned 0(\.\d+)? NOS", panel)
    # It takes everything down again.
    assert not Path("/var/lib/nosana-sandbox/demo").exists()
