"""A poster's endpoint for confidential jobs, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FakePosters:
    """A poster's endpoint: what it gives, what it was given; `answers` are raised one by one before that."""

    gives: bytes = b"{}"
    given: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(verb, URL, Authorization)."""
    get_answers: list[Exception] = field(default_factory=list)
    post_answers: list[Exception] = field(default_factory=list)

    async def get(self, url: str, *, authorization: str) -> bytes:
        self.asked.append(("GET", url, authorization))
        if self.get_answers:
            raise self.get_answers.pop(0)
        return self.gives

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        self.asked.append(("POST", url, authorization))
        if self.post_answers:
            raise self.post_answers.pop(0)
        self.given.append(body)
