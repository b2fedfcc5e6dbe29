#!/usr/bin/env bash
# obstore 0.12.1: a listing that the server refuses raises GenericError whatever the status; a `get` that the same
# server refuses raises the exception for the status.
#
# Code that catches PermissionDeniedError around `list` to say "check your keys" never does.
#
# Seen:
#   status   list            get
#   401      GenericError    UnauthenticatedError
#   403      GenericError    PermissionDeniedError
#   404      GenericError    FileNotFoundError (the built-in one, not obstore.exceptions.NotFoundError)
#
# What to do: read the status from the error's text ("status code: 403").
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$work/venv/bin/python" - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
from obstore.store import S3Store


class Refusing(BaseHTTPRequestHandler):
    """Answers each request for a bucket named s403 with 403, and so on, as S3 does for a stranger."""

    def do_GET(self):
        body = b"<Error><Code>Refused</Code></Error>"
        self.send_response(int(self.path[2:5]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""


server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {}
for status in (401, 403, 404):
    store = S3Store(
        f"s{status}",
        endpoint=f"http://127.0.0.1:{server.server_port}",
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    listed, text = raised(lambda store=store: list(store.list("m")))
    assert f"status code: {status}" in text
    seen[status] = (listed, raised(lambda store=store: obstore.get(store, "m"))[0])
    print("obstore", obstore.__version__, status, *seen[status])
server.shutdown()
expected = {
    401: ("GenericError", "UnauthenticatedError"),
    403: ("GenericError", "PermissionDeniedError"),
    404: ("GenericError", "FileNotFoundError"),
}
raise SystemExit(0 if seen == expected else "the behaviour has changed")
PYTHON
