#!/usr/bin/env bash
# obstore 0.12.1: `sign` answers a string that is a valid S3 key, but not one of its paths, with a TypeError about
# the argument's type; `list` with the same string as prefix raises a ValueError with the reason.
#
# S3 allows keys with empty parts (a//b) and control characters (a tab), and servers list them.
#
# Seen:
#   sign(store, "GET", "a//b", …)  TypeError: Expected string path or sequence of string paths.
#   store.list("a//b")             ValueError: Could not parse path: Path "a//b" contained empty path segment
#
# What to do: catch TypeError around `sign`, and name the key. Code that catches obstore's own exceptions misses both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$work/venv/bin/python" - <<'PYTHON'
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

# Nothing is requested: signing is local, and the prefix is refused before a connection.
store = S3Store("bucket", region="us-east-1", access_key_id="key", secret_access_key="secret")
seen = []
for key in ("a//b", "t\tab"):
    for name, call in (
        ("sign", lambda key=key: obstore.sign(store, "GET", key, timedelta(hours=1))),
        ("list", lambda key=key: list(store.list(key))),
    ):
        try:
            call()
            error = None
        except Exception as raised:
            error = raised
        print("obstore", obstore.__version__, name, repr(key), type(error).__name__, str(error).splitlines()[:1])
        seen.append((name, type(error), isinstance(error, BaseError), "string path" in str(error)))
assert obstore.sign(store, "GET", "a/b", timedelta(hours=1)).startswith("https://")
expected = [("sign", TypeError, False, True), ("list", ValueError, False, False)] * 2
raise SystemExit(0 if seen == expected else "the behaviour has changed")
PYTHON
