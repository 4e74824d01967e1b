"""HTTP for the teacher `openai`: one request and its response, and what a failure means.

A request that never reached the endpoint costs nothing (`NotSent`); one that was sent and got no response may be on the
bill (`Lost`).
"""

import asyncio
import json
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from llm2llm.components.shared.base.errors import UserError

_COMPRESSED = re.compile(r"content-encoding: \w+ \((\w+)\)\. Please install `([\w.]+)`")
"""What aiohttp says of a compression that it lacks a package for."""
MAX_ANSWER = 2**20
"""Bytes of one response that are read; a longer one is cut off."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False
    """Whether the body was longer than `MAX_ANSWER`."""

    @property
    def charset(self) -> str:
        """The character set that the headers name; empty where they name none."""
        return self.headers.get("Content-Type", "").lower().partition("charset=")[2].partition(";")[0].strip(" \"'")

    @property
    def is_web_page(self) -> bool:
        """Whether the body is HTML, which no API answers with."""
        return self.body.lstrip()[:1] == b"<"


class NotSent(Exception):
    """The request never reached the endpoint."""


class Lost(Exception):
    """It was sent, and no response came: it may be on the bill."""


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout: float,
    proxy: str | None,
) -> Response:
    """One request and its response.

    Args:
        session: With the headers of every request.
        method: GET or POST.
        url: The address.
        body: Sent as JSON.
        timeout: Seconds, from the request's first byte to the response's last.
        proxy: Its URL.

    Raises:
        NotSent, Lost: See there.
        UserError: No connection is possible with these settings.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": "application/json"}
    try:
        async with (
            asyncio.timeout(timeout),
            session.request(
                method, url, data=data, headers=headers, allow_redirects=False, proxy=proxy
            ) as response,
        ):  # fmt: skip
            came = bytearray()
            while not response.content.at_eof():
                came += await response.content.readany()
                if len(came) > MAX_ANSWER:
                    response.close()
                    break
            return Response(response.status, response.headers, bytes(came[:MAX_ANSWER]), len(came) > MAX_ANSWER)
    except TimeoutError:
        raise Lost(f"no answer within {timeout:g} s") from None
    except aiohttp.InvalidURL:
        raise UserError(f"teacher {url.partition('?')[0]}: this is no URL") from None
    except aiohttp.ClientSSLError as problem:
        raise UserError(
            f"teacher {url.partition('?')[0]}: no secure connection ({problem.os_error}); if the certificate is of an "
            "authority of your own, set SSL_CERT_FILE to its file"
        ) from None
    except aiohttp.ClientHttpProxyError as problem:  # its own words hold the proxy's password
        raise NotSent(f"the proxy refuses to connect (HTTP {problem.status})") from None
    except aiohttp.ClientConnectorError as problem:
        raise NotSent(f"cannot connect ({_reason(problem.os_error)})") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        if missing := _COMPRESSED.search(str(problem)):  # each further try would be paid for, and not be read either
            raise UserError(
                f"teacher {url.partition('?')[0]}: compresses its answers as {missing[1]}, which was not asked for; "
                f"turn that off at the endpoint or its gateway, or install the Python package {missing[2]}"
            ) from None
        raise Lost(f"the connection broke ({_reason(problem)})") from None


def find_proxy(url: str) -> str | None:
    """The proxy for a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY. (aiohttp would look it up for each request.)"""
    parts = urlsplit(url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an endpoint asks to be left alone for; it may give them in three ways."""
    for name, scale in (("Retry-After-Ms", 1000.0), ("Retry-After", 1.0)):
        try:
            return max(0.0, float(headers[name]) / scale)
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers["Retry-After"])
    except (KeyError, ValueError, OverflowError):
        return None
    seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)
    return max(0.0, seconds.total_seconds())


def _reason(problem: Exception) -> str:
    """What the operating system says; aiohttp's own words where it says nothing."""
    if isinstance(problem, OSError) and problem.errno is not None:
        return os.strerror(problem.errno) if problem.errno > 0 else str(problem.strerror)
    return str(problem) or type(problem).__name__
