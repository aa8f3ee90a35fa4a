"""The key: read from the environment, sent to the endpoint, shown to nobody."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import openai

from pie_fast.errors import PieFastError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Key:
    """A key that no message, repr or traceback shows.

    Args:
        variable: The environment variable that holds it.
        host: Who gets it.

    Raises:
        PieFastError: There is none; only a server on this machine needs none. Or it has a
            character that no header can carry: the client would show it in its error.
    """

    def __init__(self, variable: str, host: str) -> None:
        self._value = os.environ.get(variable, "").strip()
        if not self._value and host not in _LOOPBACK:
            raise PieFastError(f"{host} needs a key in the environment variable {variable}")
        if not all("!" <= character <= "~" for character in self._value):
            raise PieFastError(
                f"the key in the environment variable {variable} has a character that is not from "
                "! to ~ in ASCII, such as a space, a line break or an accent"
            )

    def __repr__(self) -> str:
        return "<key>"

    def client(self, base_url: str, timeout: float) -> openai.OpenAI:
        """A client that sends it, and tries everything once only."""
        return openai.OpenAI(
            api_key=self._value or "none", base_url=base_url, timeout=timeout, max_retries=0
        )

    def hidden(self, text: str) -> str:
        """`text` without it."""
        return text.replace(self._value, "***") if self._value else text


def host_of(base_url: str) -> str:
    """The host of an address.

    Raises:
        PieFastError: It is none, or holds credentials, which are not shown.
    """
    if "@" in base_url or "?" in base_url:
        raise PieFastError(
            "base_url has a user, a password or a query; the key comes from the environment only"
        )
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise PieFastError(f"base_url is {base_url!r}, must be http(s)://HOST[:PORT]/PATH")
    return host
