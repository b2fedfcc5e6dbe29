#!/usr/bin/env bash
# obstore 0.12.1: the listing of an S3 bucket shows a folder marker as a file.
#
# A console's "Create folder" makes an object of 0 bytes whose key ends with a slash. obstore lists it without the
# slash, so it looks like an empty file. Nothing in the entry tells the two apart, and a request for the listed path
# is a request for another object, which does not exist.
#
# Seen:
#   keys in the bucket:  m/sub/ (0 bytes)   m/sub/f.txt (1 byte)
#   listed by obstore:   m/sub  (0 bytes)   m/sub/f.txt (1 byte)
#   get of m/sub:        FileNotFoundError
#
# What to do: take an empty object whose path is a folder of another object for a marker, and skip any other empty one
# that the server does not have.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$work/venv/bin/python" - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

OBJECTS = {"m/sub/": b"", "m/sub/f.txt": b"x"}
ENTRY = "<Contents><Key>{}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>{}</Size></Contents>"


class Bucket(BaseHTTPRequestHandler):
    """A bucket as the S3 API describes it: ListObjectsV2, and objects by their exact key."""

    def do_GET(self):
        parts = urlsplit(self.path)
        key = parts.path.removeprefix("/bucket").removeprefix("/")
        if not key:
            entries = "".join(ENTRY.format(key, len(data)) for key, data in OBJECTS.items())
            body = f"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            self.answer(200, body.encode())
        else:
            self.answer(*((200, OBJECTS[key]) if key in OBJECTS else (404, b"<Error><Code>NoSuchKey</Code></Error>")))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
store = S3Store(
    "bucket",
    endpoint=f"http://127.0.0.1:{server.server_port}",
    region="us-east-1",
    skip_signature=True,
    virtual_hosted_style_request=False,
    client_options={"allow_http": True},
)
listed = sorted((meta["path"], meta["size"]) for batch in store.list("m") for meta in batch)
print("obstore", obstore.__version__, "lists", listed)
try:
    obstore.get(store, listed[0][0])
    found = "an object"
except FileNotFoundError:
    found = "FileNotFoundError"
print("get of", listed[0][0], "gives", found)
server.shutdown()
expected = ([("m/sub", 0), ("m/sub/f.txt", 1)], "FileNotFoundError")
raise SystemExit(0 if (listed, found) == expected else "the behaviour has changed")
PYTHON
