"""A stand-in for a public S3 bucket with its own host name: listing and objects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from aiohttp import web

from nosana_sandbox.resources.serving import Faults, Served, serve


@dataclass(slots=True)
class Bucket:
    """Objects by key. With `anything`, every requested key has some content."""

    objects: dict[str, bytes] = field(default_factory=dict)
    anything: bool = False
    encrypted: bool = False
    """Encrypted with a key of the account, so that ETags are not hashes."""
    faults: Faults = field(default_factory=Faults)
    served: list[Served] = field(default_factory=list)

    def below(self, prefix: str) -> dict[str, bytes]:
        """The objects whose keys begin with the prefix."""
        objects = {key: content for key, content in self.objects.items() if key.startswith(prefix)}
        if not objects and self.anything and prefix:
            key = prefix.rstrip("/") + "/stand-in"
            objects = {key: self.at(key) or b""}
        return dict(sorted(objects.items()))

    def at(self, key: str) -> bytes | None:
        """The content of the object with this key."""
        return self.objects.get(key, f"stand-in for {key}\n".encode() if self.anything else None)


def bucket_app(bucket: Bucket) -> web.Application:
    """The bucket as a web application."""
    app = web.Application()

    async def get(request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        if not key:
            return web.Response(
                text=_listing(bucket, request.query.get("prefix", "")), content_type="application/xml"
            )
        content = bucket.at(key)
        if content is None:
            return web.Response(
                status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"
            )
        encrypted = {"x-amz-server-side-encryption-aws-kms-key-id": "key"} if bucket.encrypted else {}
        return await serve(
            request,
            content,
            etag=_etag(bucket, content),
            headers={"x-amz-request-id": "1", **encrypted},
            faults=bucket.faults,
            log=bucket.served,
        )

    app.router.add_get("/{key:.*}", get)
    return app


def _listing(bucket: Bucket, prefix: str) -> str:
    """The response to ListObjectsV2, all keys on one page."""
    entries = [
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
        f"<ETag>{escape(_etag(bucket, content))}</ETag>"
        f"<Size>{len(content)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key, content in bucket.below(prefix).items()
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
    )


def _etag(bucket: Bucket, content: bytes) -> str:
    salt = b"key" if bucket.encrypted else b""
    return f'"{hashlib.md5(salt + content, usedforsecurity=False).hexdigest()}"'
