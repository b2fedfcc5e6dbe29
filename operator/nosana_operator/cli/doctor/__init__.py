"""`nosana-operator doctor`: what is wrong with a cluster, its settings and its markets, and what to do.

gather.py    asks Kubernetes, the chains and IPFS; what gave no answer is Unknown
facts.py     what was found out, frozen
checks/      pure: facts → findings, each with its remedy
report.py    findings for people and for programs
"""

from __future__ import annotations

from nosana_operator.cli.doctor.command import doctor

__all__ = ["doctor"]
