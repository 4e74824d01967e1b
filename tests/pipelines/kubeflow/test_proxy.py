"""Kubeflow behind a proxy: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, with a real proxy on loopback."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow.client import TOKEN_VARIABLE, connect, proxy_for
from tests.support.cluster import Run
from tests.support.kfp_server import KfpServer
from tests.support.proxy_server import ProxyServer

NAME = "kubeflow.no-such-host.invalid"
PASSWORD = "canary%3Apassw0rd"  # as it stands in a URL
SECRETS = (PASSWORD, "canary:passw0rd", "bWU6Y2FuYXJ5OnBhc3N3MHJk")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def proxy(kfp_server: KfpServer) -> Iterator[ProxyServer]:
    server = ProxyServer(urlsplit(kfp_server.url).port or 0)
    yield server
    server.stop()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_host_that_only_the_proxy_knows_is_reached_through_it(
    variable: str, proxy: ProxyServer, kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"http://{NAME}"
    assert run("schedule", "list", "--host", host)[0] == 2  # without a proxy there is no such name
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    code, _, err = run("submit", "quickstart", "--host", host)
    assert (code, err) == (0, "")
    assert proxy.requests[0] == f"GET {host}/apis/v2beta1/healthz"
    assert {"GET", "POST"} == {request.split()[0] for request in proxy.requests}
    assert len(kfp_server.runs) == 1


def test_https_is_tunnelled_and_the_token_is_not_shown_to_the_proxy(
    proxy: ProxyServer, kfp_server: KfpServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key),
            "-out", str(certificate)]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    kfp_server.encrypt(context)
    kfp_server.token = "token"
    monkeypatch.setenv(TOKEN_VARIABLE, "token")
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    code, _, err = run("schedule", "list", "--host", f"https://{NAME}/", "--ca-file", str(certificate))
    assert (code, err) == (0, "")
    assert set(proxy.requests) == {f"CONNECT {NAME}:443"}


@pytest.mark.parametrize("listed", [NAME, ".no-such-host.invalid", "other,invalid", "*"])
def test_no_proxy_wins(listed: str, proxy: ProxyServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", listed)
    assert run("schedule", "list", "--host", f"http://{NAME}")[0] == 2
    assert proxy.requests == []


def test_loopback_and_names_inside_the_cluster_are_asked_directly(
    proxy: ProxyServer, kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    assert run("schedule", "list", "--host", kfp_server.url)[0] == 0
    assert proxy.requests == []
    assert proxy_for("http://ml-pipeline.kubeflow.svc.cluster.local:8888") is None
    assert proxy_for("http://ml-pipeline.example.org:8888") is not None


def test_a_password_reaches_the_proxy_and_nothing_that_is_printed(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ProxyServer(urlsplit(kfp_server.url).port or 0, "me:canary:passw0rd")
    try:
        host = f"http://{NAME}"
        monkeypatch.setenv("HTTP_PROXY", f"http://me:{PASSWORD}@{proxy.address}")
        code, out, err = run("submit", "quickstart", "--host", host)
        assert (code, err) == (0, "")
        said = out + repr(connect(host)) + repr(proxy_for(host)) + str(proxy_for(host))
        for status in (502, 500):
            proxy.status = status
            code, out, err = run("schedule", "list", "--host", host)
            assert code == 2
            said += out + err
        proxy.stop()
        said += "".join(run("schedule", "list", "--host", host)[1:])
        assert f"through the proxy http://{proxy.address} of HTTP_PROXY" in said
        assert not any(secret in said for secret in SECRETS)
    finally:
        proxy.stop()


@pytest.mark.parametrize(("scheme", "variable"), [("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY")])
def test_a_proxy_that_wants_another_password_says_so(
    scheme: str, variable: str, kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ProxyServer(urlsplit(kfp_server.url).port or 0, "me:other")
    try:
        monkeypatch.setenv(variable, f"http://me:{PASSWORD}@{proxy.address}")
        code, out, err = run("schedule", "list", "--host", f"{scheme}://{NAME}")
        assert code == 2
        assert f"the proxy http://{proxy.address} of {variable}" in err
        assert "407" in err
        assert len(err.splitlines()) == 1
        assert not any(secret in out + err for secret in SECRETS)
        assert len(proxy.requests) <= 4  # it is not asked again and again
    finally:
        proxy.stop()


@pytest.mark.parametrize(
    "url", ["socks5://me:secret@h:1080", "http://", "http://h:port-secret", "http://me:secret@[::1"]
)
def test_a_variable_that_names_no_http_proxy_is_refused_without_its_value(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(UserError, match="https_proxy: the URL of an HTTP proxy") as refused:
        connect("https://kubeflow.example.org")
    assert "secret" not in str(refused.value)
