"""A connection to Kubeflow Pipelines: authentication, retries, and errors in one sentence.

`kfp.Client` knows the ways to log in. Its generated methods are called from here, because its own have no time-out,
give up at the first 503, and print.

    cluster = connect("https://kubeflow.example.org/pipeline")
    run = cluster.call(cluster.client.runs.run_service_get_run, run_id)

The token, in this order: a file (`--token-file`, read again for each request, so that it may be renewed), the
environment variable LLM2LLM_KFP_TOKEN, and the token volume of a pod's service account (KF_PIPELINES_SA_TOKEN_PATH, or
where Kubeflow mounts it). Beside it whatever kfp's own context file (~/.config/kfp/context.json) holds: cookie, header,
namespace.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (or in lower case, which wins) decide whether a proxy is asked, as for
curl. Loopback addresses and names inside a cluster (`.svc`) are never looked for through one.
"""

import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from llm2llm.components.shared.base.errors import UserError, did_you_mean

TOKEN_VARIABLE = "LLM2LLM_KFP_TOKEN"  # noqa: S105  # the name of the variable, and below of a variable and a path
TOKEN_PATH_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105
TOKEN_PATH = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105
NAMESPACE_PATH = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of a request that a busy server or a broken connection left without an answer."""
TIMEOUT = (5, 60)
"""Seconds to connect, and between two bytes of an answer."""
PAGE = 100


class ClusterProblem(UserError):
    """What the server said, or that it said nothing.

    Args:
        message: For a person.
        status: The HTTP status; 0: no answer came.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in (0, 429, 502, 503, 504)


@dataclass(frozen=True)
class Cluster:
    """A Kubeflow Pipelines server that has answered."""

    client: Any
    """The kfp.Client; call its generated methods through `call`."""
    host: str
    ui: str
    """Where a person's browser finds it."""
    namespace: str
    """Where runs and experiments are; empty on a server for one user."""
    login: str
    """In words, what it was told about who we are; never the secret itself."""
    proxy: "Proxy | None" = None
    """What stands between; None: nothing."""
    ignored_namespace: str = ""
    """The namespace that was asked for, where the server serves one user and ignores it."""

    def call(self, method: Callable[..., Any], *arguments: Any, tries: int = len(PAUSES) + 1, **keywords: Any) -> Any:
        """Calls a generated method that may safely be called twice.

        Raises:
            ClusterProblem: The server refused, or did not answer in any of the tries.
        """
        for number in range(tries):
            try:
                answer = method(*arguments, _request_timeout=TIMEOUT, **keywords)
                return self._checked(answer)
            except UserError:
                raise
            except Exception as problem:  # the generated client's own errors, urllib3's, and those it stumbles into
                explained = self._explained(problem)
                if not explained.passing or number == tries - 1:
                    raise explained from None
                time.sleep(PAUSES[min(number, len(PAUSES) - 1)])
        raise AssertionError("tries is at least 1")

    def create(self, make: Callable[[], Any], find: Callable[[], Any]) -> Any:
        """Makes something once, whatever the network does.

        A request whose answer was lost may have been carried out. Before it is sent again, and when the server says
        that the thing exists, `find` looks for it.

        Args:
            make: Sends the request, through `call` with `tries=1`.
            find: Returns the thing, or None.
        """
        for number in range(len(PAUSES) + 1):
            try:
                return make()
            except ClusterProblem as problem:
                if problem.status != 409 and not problem.passing:
                    raise
                if problem.passing:
                    time.sleep(PAUSES[min(number, len(PAUSES) - 1)])
                found = find()
                if found is not None:
                    return found
                if number == len(PAUSES) or problem.status == 409:
                    raise
        raise AssertionError("the last try returns or raises")

    def pages(
        self, method: Callable[..., Any], items: str, *arguments: Any, most: int = 0, **keywords: Any
    ) -> list[Any]:
        """All that a list method returns, page after page; at most about `most` when that is above 0."""
        found: list[Any] = []
        token = ""
        while True:
            page = self.call(method, *arguments, page_size=PAGE, page_token=token, **keywords)
            found += getattr(page, items) or []
            token = page.next_page_token
            if not token or (most and len(found) >= most):
                return found

    def get(self, path: str, response_type: str = "object", tries: int = 2, **names: str) -> Any:
        """What an endpoint answers that the generated client has no method for, such as one of the older API.

        Args:
            path: Below the host, with `{name}` for what `names` holds.
            response_type: `object` for JSON, `str` for text.
            tries: As for `call`.

        Raises:
            ClusterProblem: As `call`.
        """

        def ask(_request_timeout: Any) -> Any:
            return self._sender.call_api(
                path, "GET", path_params=names, query_params=[], header_params={"Accept": "*/*"},
                response_type=response_type, auth_settings=["Bearer"], _return_http_data_only=True,
                _request_timeout=_request_timeout,
            )  # fmt: skip

        return self.call(ask, tries=tries)

    def run_link(self, run_id: str) -> str:
        """Where a person sees a run."""
        return f"{self.ui}/#/runs/details/{run_id}"

    def experiment_id(self, name: str, create: bool) -> str:
        """The id of the experiment of this name.

        Args:
            name: Its display name.
            create: Whether to make it where there is none.

        Raises:
            UserError: There is none, with the nearest that there is.
        """
        import kfp_server_api

        service = self.client.experiments

        def find() -> Any:
            found = self.call(
                service.experiment_service_list_experiments, filter=equals("display_name", name), **self.scope()
            )
            return next(iter(found.experiments or []), None)

        experiment = find()
        if experiment is None and not create:
            known = self.pages(service.experiment_service_list_experiments, "experiments", **self.scope())
            names = sorted(one.display_name for one in known)
            raise UserError(
                f"no experiment {name!r}{did_you_mean(name, names)}; there are {', '.join(names) or 'none'}; "
                "give --create-experiment to make it"
            )
        if experiment is None:
            body = kfp_server_api.V2beta1Experiment(display_name=name, **self.scope())
            experiment = self.create(
                lambda: self.call(service.experiment_service_create_experiment, body, tries=1), find
            )
        return str(experiment.experiment_id)

    def scope(self) -> dict[str, Any]:
        """The namespace as an argument, where the server has any."""
        return {"namespace": self.namespace} if self.namespace else {}

    @property
    def _sender(self) -> Any:
        """The generated ApiClient that all of the client's methods send through."""
        return self.client.runs.run_service_get_run.__self__.api_client

    def _checked(self, answer: Any) -> Any:
        """The answer, unless it is a login page: a proxy in front sends the unknown there, with status 200."""
        said = self._sender.last_response.urllib3_response.headers.get("content-type", "")
        if "html" in said:
            raise ClusterProblem(
                f"{self.host} answers with a page for people, probably to log in; {self.login}; see that the token is "
                "meant for this server, and that the address is that of the API (often .../pipeline)",
                401,
            )
        return answer

    def _explained(self, problem: Exception) -> ClusterProblem:
        import kfp_server_api
        import urllib3

        # The generated client stumbles over its own error when there is no body to decode.
        if isinstance(problem, AttributeError) and isinstance(problem.__context__, kfp_server_api.ApiException):
            problem = problem.__context__
        if isinstance(problem, kfp_server_api.ApiException) and problem.status:
            return self._refused(int(problem.status), self._said(problem))
        text = str(problem)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ClusterProblem(
                f"the certificate of {self.host} is not trusted; give the file of your authority's certificate with "
                "--ca-file, or set SSL_CERT_FILE",
                495,
            )
        if "SSL" in text:
            return ClusterProblem(f"no secure connection to {self.host}; is it http://?", 495)
        if self.proxy and (refusal := _proxy_refusal(problem)):
            # A 5xx of the proxy may be gone a little later, a password that it does not know will not.
            status = 0 if re.search(r"\b50[234]\b", refusal) or not re.search(r"\b[1-5]\d\d\b", refusal) else 407
            return ClusterProblem(
                f"{self.host} cannot be reached through {self.proxy} ({refusal}); check the proxy, or put the host "
                "into NO_PROXY",
                status,
            )
        if isinstance(problem, (urllib3.exceptions.HTTPError, OSError)):
            why = getattr(problem, "reason", None) or problem
            return ClusterProblem(
                f"{self.host} cannot be reached ({_cause(why)}); check the address, the network, and whether a "
                "port-forward is still open",
                0,
            )
        return ClusterProblem(f"{self.host} answers with what is not Kubeflow's ({type(problem).__name__})", 500)

    def _refused(self, status: int, said: str) -> ClusterProblem:
        what = f": {said}" if said else ""
        if status == 401:
            return ClusterProblem(
                f"{self.host} does not know who we are (401{what}); {self.login}; a token may have expired, or be "
                "meant for another audience: get a new one",
                status,
            )
        if status == 407:
            return ClusterProblem(f"{self.proxy} asks for a user name and a password (407); set them there", status)
        if status == 403:
            where = f" in namespace {self.namespace!r}" if self.namespace else ""
            return ClusterProblem(f"{self.host} does not permit it{where} (403{what}); {self.login}", status)
        if status in (429, 502, 503, 504):
            return ClusterProblem(f"{self.host} is too busy, or not up ({status}{what}); try again later", status)
        return ClusterProblem(f"{self.host} refuses it ({status}{what})", status)

    def _said(self, problem: Any) -> str:
        """The server's own message, without what we logged in with, should it repeat that."""
        body = str(problem.body or "")
        try:
            fields = json.loads(body)
            text = str(fields.get("message") or fields.get("error") or "") if isinstance(fields, dict) else ""
        except ValueError:
            text = "" if "<" in body else body
        sender = self._sender
        # Beside the token the cookie and the header of kfp's own context file.
        headers = [value for name, value in sender.default_headers.items() if name != "User-Agent"]
        proxy = self.proxy.secrets if self.proxy else ()
        for secret in [*sender.configuration.api_key.values(), sender.cookie, *headers, *proxy]:
            text = text.replace(secret, "***") if secret else text
        text = " ".join(text.split())
        return text if len(text) <= 300 else text[:297] + "..."


@dataclass(frozen=True)
class Proxy:
    """A proxy from the environment. Its text has no credentials, whatever it is printed with."""

    url: str
    """Without credentials."""
    variable: str
    """The environment variable that named it."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What it is sent beside a request: its credentials."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must never be shown."""

    def __str__(self) -> str:
        return f"the proxy {self.url} of {self.variable}"


def proxy_for(host: str) -> Proxy | None:
    """The proxy that the environment names for a host; None: the host is asked directly.

    Args:
        host: A URL.

    Raises:
        UserError: The variable holds no URL of an HTTP proxy; it is named, and its value is not shown.
    """
    known = getproxies_environment()
    scheme = urlsplit(host).scheme
    kind = scheme if known.get(scheme) else "all"
    if not known.get(kind) or _stays_inside(host):
        return None
    from requests.utils import should_bypass_proxies
    from urllib3 import make_headers

    if should_bypass_proxies(host, no_proxy=None):
        return None
    variable = f"{kind}_proxy" if os.environ.get(f"{kind}_proxy") else f"{kind}_proxy".upper()
    given = known[kind] if "://" in known[kind] else f"http://{known[kind]}"
    try:
        parts = urlsplit(given)
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name or parts.scheme not in ("http", "https"):
        raise UserError(
            f"{variable}: the URL of an HTTP proxy such as http://proxy.example.org:3128 is expected; correct it, or "
            f"put {urlsplit(host).hostname} into NO_PROXY"
        )
    place = f"[{name}]" if ":" in name else name
    url = f"{parts.scheme}://{place}{f':{port}' if port else ''}"
    if not parts.username:
        return Proxy(url, variable)
    user, password = unquote(parts.username), unquote(parts.password or "")
    headers = make_headers(proxy_basic_auth=f"{user}:{password}")
    encoded = headers["proxy-authorization"].partition(" ")[2]
    secrets = tuple(secret for secret in (encoded, password, parts.password) if secret)
    return Proxy(url, variable, headers, secrets)


def connect(
    host: str | None, token_file: Path | None = None, ca_file: Path | None = None, namespace: str = ""
) -> Cluster:
    """Connects, and asks the server whether it is there.

    Args:
        host: The API's URL; None: that of KF_PIPELINES_ENDPOINT, or of the cluster that this pod is in.
        token_file: Holds the token.
        ca_file: Certificates to trust; None: those of SSL_CERT_FILE, or certifi's.
        namespace: Where runs are, on a server for several users; empty: the one of kfp's context, or of this pod.

    Raises:
        UserError: No host, no such file, nobody there, not logged in, or no namespace where one is needed; no proxy
            where a variable is to name one.
    """
    host = _checked_host(host)
    proxy = proxy_for(host)
    token, credentials, login = _login(token_file)
    if urlsplit(host).scheme == "http" and (token or credentials) and not _stays_inside(host):
        raise UserError(f"{host}: a token would be sent in the clear; use https://")
    bundle = str(ca_file) if ca_file else os.environ.get("SSL_CERT_FILE")
    if bundle and not Path(bundle).is_file():
        raise UserError(
            f"{bundle}: no such file of certificates; correct {'--ca-file' if ca_file else 'SSL_CERT_FILE'}"
        )
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of each try; `call` says what came
    import kfp_server_api
    from kfp.client import Client

    class Quiet(Client):
        """The client's constructor asks for the server's health, five times with tracebacks; `connect` asks itself."""

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)

        def _load_config(self, *arguments: Any, **keywords: Any) -> Any:
            config = super()._load_config(*arguments, **keywords)
            if proxy:  # its credentials are a header: a URL would be shown with them in errors
                config.proxy, config.proxy_headers = proxy.url, dict(proxy.headers) or None
            return config

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = Quiet(host=host, existing_token=token, credentials=credentials, ssl_ca_cert=bundle)
        except (OSError, ValueError) as problem:  # kfp's context file, or the certificates
            raise UserError(f"{host}: no connection can be set up: {_cause(problem)}") from None
    ui = os.environ.get(UI_VARIABLE, host).rstrip("/")
    cluster = Cluster(client, host, ui, namespace or client.get_user_namespace(), login, proxy)
    try:
        health = cluster.call(client.healthzs.healthz_service_get_healthz, tries=3)
    except ClusterProblem as problem:
        if problem.status != 404:
            raise
        raise UserError(f"{host}: no Kubeflow Pipelines API is there; its address often ends in /pipeline") from None
    if not health.multi_user:
        return replace(cluster, namespace="", ignored_namespace=namespace)  # such a server takes none
    if not cluster.namespace:
        inside = Path(NAMESPACE_PATH)
        if not inside.is_file():
            raise UserError(f"{host} serves several users: give --namespace, the one that your runs belong to")
        return replace(cluster, namespace=inside.read_text().strip())
    return cluster


def equals(key: str, value: str) -> str:
    """A list method's `filter`: what has this value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def _checked_host(host: str | None) -> str:
    host = host or os.environ.get(HOST_VARIABLE) or (IN_CLUSTER if "KUBERNETES_SERVICE_HOST" in os.environ else None)
    if not host:
        raise UserError(f"no host: give --host with the URL of Kubeflow Pipelines, or set {HOST_VARIABLE}")
    if "://" not in host:
        host = f"https://{host}"
    try:
        parts = urlsplit(host)
        name, _ = parts.hostname, parts.port
    except ValueError:
        name = None
    if not name or parts.scheme not in ("http", "https"):
        raise UserError("--host: a URL such as https://kubeflow.example.org/pipeline is expected")
    if "@" in parts.netloc:
        raise UserError("--host: holds a user name or password, which would be shown in logs; use a token file")
    return host.partition("#")[0].rstrip("/")


def _login(token_file: Path | None) -> tuple[str | None, Any, str]:
    """(token, credentials that read one, in words what was found)."""
    if token_file is not None:
        return None, _from_file(token_file), f"the token is that of {token_file}"
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        if not token.isascii() or len(token.split()) > 1:
            raise UserError(f"{TOKEN_VARIABLE}: holds what no token can, such as a space or a line break")
        return token, None, f"the token is that of {TOKEN_VARIABLE}"
    volume = Path(os.environ.get(TOKEN_PATH_VARIABLE) or TOKEN_PATH)
    if volume.is_file():
        return None, _from_file(volume), f"the token is that of the service account, {volume}"
    return None, None, f"no token was sent: give --token-file, or set {TOKEN_VARIABLE}"


def _from_file(path: Path) -> Any:
    def read() -> str:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise UserError(f"cannot read the token file {path}: {_cause(problem)}") from None
        if not token or not token.isascii() or len(token.split()) > 1:
            raise UserError(f"{path}: holds no token: one line without spaces is expected")
        return token

    from kfp.client.token_credentials_base import TokenCredentialsBase

    class FromFile(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = read()

    read()  # a wrong path is found before anything is sent
    return FromFile()


def _proxy_refusal(problem: Exception) -> str:
    """What a proxy answered, or why it cannot be reached; empty: it is not the proxy that failed."""
    import urllib3

    reason = getattr(problem, "reason", problem)
    if not isinstance(reason, urllib3.exceptions.ProxyError):
        return ""
    said = str(reason.original_error)
    # `Tunnel connection failed: 502 Bad Gateway`; any other text holds addresses of objects.
    return said.removeprefix("Tunnel connection failed: ") if "Tunnel" in said else _cause(reason.original_error)


def _stays_inside(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.") or name.endswith((".svc", ".svc.cluster.local"))


def _cause(problem: object) -> str:
    """A few words for a chain of exceptions whose texts hold the addresses of objects."""
    for part in (problem, getattr(problem, "__cause__", None), getattr(problem, "__context__", None)):
        if isinstance(part, OSError) and part.strerror:
            return part.strerror.lower()
    name = type(problem).__name__
    return {
        "NameResolutionError": "no such name",
        "NewConnectionError": "connection refused",
        "ConnectTimeoutError": "no answer",
        "ReadTimeoutError": "it accepts connections and does not answer",
        "ProtocolError": "the connection broke",
        "RemoteDisconnected": "the connection broke",
    }.get(name, name)
