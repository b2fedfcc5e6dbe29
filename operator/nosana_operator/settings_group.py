"""The base of every group of settings, and the types of values that several groups have.

The room that uses a group declares it (`chain.FeePolicy`, `workload.Isolation`, …), and `runtime.settings` puts the
groups together. Each attribute's docstring is its description in docs/reference/settings.md: it gives the unit, the
reason of the default, and how to switch the thing off.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class SettingsGroup(BaseModel):
    """camelCase in the file, snake_case in code; closed and frozen. An error never shows the value it refuses."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


def _dns_label(name: str) -> str:
    if not _DNS_LABEL.fullmatch(name):
        raise ValueError("lower-case letters, digits and dashes are needed, 63 characters at most")
    return name


def _cidr(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            "a range like 10.0.0.0/8 or fd00::/8 is needed, with no bit set behind its prefix"
        ) from None
    return text


def _url(*schemes: str) -> Callable[[str], str]:
    def check(url: str) -> str:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ValueError("this is not a URL") from None
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"a URL is needed that begins with {' or '.join(f'{s}://' for s in schemes)}")
        return url

    return check


def _gateway(url: str) -> str:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        raise ValueError(
            "use 127.0.0.1 in place of localhost: Kubo redirects requests for localhost to a subdomain of it, which "
            "does not resolve"
        )
    return url


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
"""The name of a namespace, for example."""
Cidr = Annotated[str, AfterValidator(_cidr)]
"""A range of IPv4 or IPv6 addresses."""
HttpUrl = Annotated[str, AfterValidator(_url("http", "https"))]
GatewayUrl = Annotated[HttpUrl, AfterValidator(_gateway)]
"""An IPFS gateway."""
WebSocketUrl = Annotated[str, AfterValidator(_url("ws", "wss"))]
