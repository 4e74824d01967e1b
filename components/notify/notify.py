"""One message to a webhook about how a run ended."""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llm2llm.components.shared.registry.notify_settings import NotifySettings, RunEnding

REASON_CHARACTERS = 500
SEND_SECONDS = 10.0
CONNECT_TRIES = 3

_WORDS: dict[RunEnding, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "terminated": "was ended before it was done",
    "nothing_new": "ended early: nothing was new",
}


def message(
    kind: str, outcome: RunEnding, pipeline: str, run: str, reason: str = "", figures: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is sent.

    Args:
        kind: `webhook` or `slack`.
        outcome: How the run ended.
        pipeline: The config's name.
        run: The run's id.
        reason: Why, in one line; cut after 500 characters.
        figures: What else is known, such as `best_iteration`; for `webhook` alone, but for those in the text.
    """
    reason = " ".join(reason.split())[:REASON_CHARACTERS]
    figures = dict(figures or {})
    text = f"llm2llm {pipeline}: run {run} {_WORDS[outcome]}" + (f": {reason}" if reason else "")
    if kind == "slack":  # these three are its markup
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    return {"outcome": outcome, "pipeline": pipeline, "run": run, "reason": reason, "text": text, **figures}


def send(url: str, body: Mapping[str, Any], tries: int = CONNECT_TRIES) -> str:
    """Posts a message once, and says what went wrong; empty if nothing did. The address is in no text.

    Only a connection that was never made is tried again: an answer that got lost may have been a message that arrived.
    Redirects are not followed.

    Args:
        url: http:// or https://.
        body: Sent as JSON.
        tries: Of the connection.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        return "the address does not start with http:// or https://, or names no host"
    headers = {"content-type": "application/json", "user-agent": "llm2llm"}
    opener = urllib.request.build_opener(_NoRedirect)
    problem = ""
    for number in range(tries):
        if number:
            time.sleep(float(number))
        try:
            request = urllib.request.Request(url.strip(), json.dumps(body).encode(), headers, method="POST")  # noqa: S310
            with opener.open(request, timeout=SEND_SECONDS) as answer:
                answer.read(1)
            return ""
        except urllib.error.HTTPError as error:
            error.close()
            return f"the address answered {error.code}"
        except urllib.error.URLError as error:
            problem = f"no connection: {type(error.reason).__name__}"
            if not isinstance(error.reason, ConnectionRefusedError | socket.gaierror):
                return problem
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"no answer: {type(error).__name__}"
    return problem


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would become a GET, or hand the message to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def told(
    settings: NotifySettings, url: str, outcome: RunEnding, body: Mapping[str, Any], tries: int = CONNECT_TRIES
) -> str:
    """Tells an ending, if it is one that is told; returns a line for the log.

    A message that does not arrive fails no run.
    """
    if settings.kind == "none" or outcome not in settings.outcomes:
        return f"notify: {outcome} is not told (notify.outcomes)"
    if not url:
        return f"notify: not told: the environment variable {settings.url_env} is not set"
    problem = send(url, body, tries)
    return f"notify: not told: {problem}" if problem else f"notify: told that the run {_WORDS[outcome]}"
