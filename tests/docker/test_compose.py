"""The compose file: one way to MLflow, nothing open to others, each service waits for what it needs."""

from typing import Any

import pytest
import yaml

from deeprank.home import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_is_there_and_tells_its_health(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[needed]


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_networks_are_declared(name: str) -> None:
    assert {volume.partition(":")[0] for volume in SERVICES[name].get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(SERVICES[name].get("networks", [])) <= set(COMPOSE["networks"])


def test_all_who_track_do_it_through_the_server() -> None:
    tracking = {name: service["environment"].get("MLFLOW_TRACKING_URI") for name, service in SERVICES.items()}
    assert tracking == {"postgres": None, "mlflow": None, "service": "http://mlflow:5000", "pipeline": "http://mlflow:5000"}
    (hosts,) = [word for word in SERVICES["mlflow"]["command"] if word.startswith("--allowed-hosts=")]
    assert "mlflow:5000" in hosts.removeprefix("--allowed-hosts=").split(",")


def test_the_pipeline_is_a_job() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["job"]] == ["pipeline"]
    assert "restart" not in SERVICES["pipeline"]


def test_no_password_stands_in_the_file() -> None:
    secret = [
        value
        for service in SERVICES.values()
        for key, value in service["environment"].items()
        if any(word in key for word in ("PASSWORD", "TOKEN"))
    ]
    assert len(secret) == 4
    assert all(value.startswith("${") for value in secret)
