"""What `nosana-operator doctor` examines: a cluster, its settings and its markets.

gather.py    queries Kubernetes, the chains and IPFS; whatever did not answer is Unknown
facts.py     what was found, frozen
checks/      pure: facts → findings, each with its remedy
report.py    renders findings for people and for programs
"""
