"""Who may use the service: host names, tokens, and addresses that need a token."""

from pathlib import Path

import httpx
import pytest

from deeprank.errors import ConfigError
from deeprank.serving.server import check_access, read_token
from tests.serving.live_server import LiveServer, live_server


def test_without_a_token_only_loopback_hosts_are_allowed(server: LiveServer) -> None:
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:8000", "LOCALHOST"):
        assert httpx.get(f"{server.url}/v1/model", headers={"Host": host}).status_code == 200
    # DNS rebinding: the browser of this machine sends the name of a foreign page.
    for host in ("elsewhere.example", "localhost.elsewhere.example:8000", "", "127.0.0.1:8000.elsewhere.example"):
        response = httpx.get(f"{server.url}/v1/model", headers={"Host": host})
        assert (response.status_code, response.headers["content-type"]) == (421, "application/problem+json")
        assert "responds to localhost" in response.json()["detail"]


def test_with_a_token_any_host_name_is_allowed(folder: Path) -> None:
    with live_server(str(folder), token="a token of our own") as server:
        headers = {"Host": "elsewhere.example", "Authorization": "Bearer a token of our own"}
        assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.7"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    check_access(host, None, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_other_addresses_need_a_token_or_insecure(host: str) -> None:
    with pytest.raises(ConfigError, match=f"--host {host} is reachable from other machines"):
        check_access(host, None, insecure=False)
    check_access(host, None, insecure=True)
    check_access(host, "x" * 16, insecure=False)
    with pytest.raises(ConfigError, match="the token has 0 characters"):
        check_access(host, "", insecure=True)


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPRANK_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("DEEPRANK_TOKEN", "from the environment")
    assert read_token(None) == "from the environment"
    (tmp_path / "token").write_text("from a file\n")
    assert read_token(tmp_path / "token") == "from a file"
    with pytest.raises(ConfigError, match="missing cannot be read"):
        read_token(tmp_path / "missing")
