"""The compose file: one address of MLflow, ports on loopback only, and services that wait for their dependencies."""

from typing import Any

import pytest
import yaml

from deeprank.home import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_have_a_health_check(name: str) -> None:
    for dependency, condition in SERVICES[name].get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[dependency]


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_networks_are_declared(name: str) -> None:
    assert {volume.partition(":")[0] for volume in SERVICES[name].get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(SERVICES[name].get("networks", [])) <= set(COMPOSE["networks"])


def test_every_client_of_mlflow_uses_the_server() -> None:
    tracking = {name: service["environment"].get("MLFLOW_TRACKING_URI") for name, service in SERVICES.items()}
    assert tracking == {"postgres": None, "mlflow": None, "service": "http://mlflow:5000", "pipeline": "http://mlflow:5000"}
    (hosts,) = [argument for argument in SERVICES["mlflow"]["command"] if argument.startswith("--allowed-hosts=")]
    assert "mlflow:5000" in hosts.removeprefix("--allowed-hosts=").split(",")


def test_the_pipeline_is_a_job() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["job"]] == ["pipeline"]
    assert "restart" not in SERVICES["pipeline"]


def test_the_file_holds_no_password() -> None:
    secrets = [
        value
        for service in SERVICES.values()
        for key, value in service["environment"].items()
        if any(name in key for name in ("PASSWORD", "TOKEN"))
    ]
    assert len(secrets) == 4
    assert all(value.startswith("${") for value in secrets)
