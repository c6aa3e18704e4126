"""Polling an alias of a real registry: sound releases are served, damaged ones refused, and an unreachable registry changes nothing."""

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import httpx
import mlflow
import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.home import home
from deeprank.registry.canary import CANARY_FILE, write_canary
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import Release, fetch_release, find_version
from deeprank.serving.alias_watcher import AliasWatcher
from deeprank.serving.batching import BatchSettings
from deeprank.serving.errors import NotReadyError
from deeprank.serving.service import AliasWatcherSettings, ServeSettings, Service
from tests.registry_fixtures import Store, gate_decision
from tests.serving.live_server import live_server

NAME, ALIAS = "watched", "live"
SETTINGS = ServeSettings(batching=BatchSettings(num_workers=1, num_decoders=2), alias_watcher=AliasWatcherSettings(poll_interval_s=0.05))


@pytest.fixture(scope="module")
def versions(store: Store, catalogue: Catalogue) -> None:
    """Two versions of a model; the gate made the first one champion."""
    for folder, new, old in ((store.folders[0], 0.6, None), (store.folders[2], 0.55, 0.6)):
        with mlflow.start_run(experiment_id=store.experiment):
            register(folder, RegisterSettings(name=NAME), gate_decision(new, old), catalogue, "card")


@pytest.fixture
def alias(versions: None) -> Iterator[str]:
    """An alias of this test that points to version 1; no release is fetched yet."""
    shutil.rmtree(home() / "releases" / NAME, ignore_errors=True)
    set_alias(ALIAS, 1)
    yield ALIAS
    MlflowClient().delete_registered_model_alias(NAME, ALIAS)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(SETTINGS)
    yield service
    service.batcher.close()


def set_alias(alias: str, version: int) -> None:
    MlflowClient().set_registered_model_alias(NAME, alias, str(version))


def release_folder(version: int) -> Path:
    """Return the folder of a version's release in the registry's store."""
    return Path(unquote(urlparse(MlflowClient().get_model_version_download_uri(NAME, str(version))).path)) / "artifacts"


def test_a_moved_alias_swaps_the_release_and_frees_the_old(service: Service, alias: str) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    watcher.poll()
    assert service.current().version == 1
    assert set(service.current().aliases) == {"champion", alias}
    old_searcher = weakref.ref(service.current().searcher)
    watcher.poll()
    assert service.current().searcher is old_searcher()
    set_alias(alias, 2)
    watcher.poll()
    assert (service.current().version, service.current().model) == (2, f"models:/{NAME}/2")
    assert set(service.current().aliases) == {"challenger", alias}
    assert service.current().tags["gate.state"] == "held"
    gc.collect()
    assert old_searcher() is None


@pytest.mark.parametrize("file", ["bundle/model.safetensors", "index/rows.parquet", "evaluation/metrics.json"])
def test_a_damaged_release_is_refused_and_the_old_one_served(service: Service, alias: str, tracking: Path, file: str) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    watcher.poll()
    damaged = release_folder(2) / file
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-9] + b"\0" * 8)
    set_alias(alias, 2)
    for _ in range(3):
        watcher.poll()
    damaged.write_bytes(content)
    assert service.current().version == 1
    assert service.refused is not None
    assert service.refused.version == 2
    assert str(tracking) not in service.refused.reason
    assert "deeprank_releases_refused_total 1.0" in service.metrics.text().decode()
    set_alias(alias, 1)
    watcher.poll()
    assert service.refused is None


def test_without_a_release_a_refused_one_is_tried_again(service: Service, alias: str) -> None:
    damaged = release_folder(1) / "index" / "rows.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-9] + b"\0" * 8)
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    watcher.poll()
    assert service.loaded is None
    assert service.refused is not None
    damaged.write_bytes(content)
    shutil.rmtree(home() / "releases" / NAME)
    watcher.poll()
    assert (service.current().version, service.refused) == (1, None)


def test_a_release_with_other_canary_neighbors_is_refused(service: Service, alias: str, store: Store) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    for version in (1, 2):
        write_canary(Release(store.folders[0]), release_folder(version) / CANARY_FILE)
    watcher.poll()
    assert (service.current().version, service.current().canary_passed) == (1, True)
    set_alias(alias, 2)
    watcher.poll()
    for version in (1, 2):
        (release_folder(version) / CANARY_FILE).unlink()
    assert service.current().version == 1
    assert service.refused is not None
    assert "other neighbors than when the release was registered" in service.refused.reason


def test_an_unreachable_registry_leaves_the_loaded_release(service: Service, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    watcher.poll()
    with monkeypatch.context() as unreachable:
        unreachable.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        unreachable.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        watcher.poll()
    assert service.current().version == 1
    assert service.registry is not None
    assert not service.registry.reachable
    assert service.registry.error
    set_alias(alias, 2)
    watcher.poll()
    assert (service.current().version, service.registry.reachable) == (2, True)


def test_a_release_that_cannot_be_fetched_is_fetched_later(service: Service, alias: str) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@{alias}")
    watcher.poll()
    folder = release_folder(2)
    hidden = folder.rename(folder.with_name("hidden"))
    set_alias(alias, 2)
    watcher.poll()
    assert (service.current().version, service.refused) == (1, None)
    hidden.rename(folder)
    watcher.poll()
    assert service.current().version == 2


def test_an_alias_may_be_set_later_but_a_version_must_exist(service: Service, alias: str) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}@later")
    watcher.poll()
    with pytest.raises(NotReadyError):
        service.current()
    assert service.registry is not None
    assert "has no alias later" in service.registry.error
    MlflowClient().set_registered_model_alias(NAME, "later", "1")
    watcher.poll()
    assert service.current().version == 1
    with pytest.raises(ModelError, match="is not in the registry"):
        AliasWatcher(service, f"models:/{NAME}/9").start()


def test_a_fixed_version_is_kept_when_the_alias_moves(service: Service, alias: str) -> None:
    watcher = AliasWatcher(service, f"models:/{NAME}/1")
    watcher.start()
    set_alias(alias, 2)
    watcher.stop()
    assert (service.current().version, service.current().model) == (1, f"models:/{NAME}/1")


def test_swaps_fail_no_request_and_mix_no_releases(alias: str, synthetic_folder: Path) -> None:
    image = next(synthetic_folder.rglob("*.jpg")).read_bytes()
    expected_distances = {}
    for version in (1, 2):
        fetch_release(find_version(NAME, str(version)))
    done, failures, responses = threading.Event(), [], []

    def send_searches(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                response = client.post("/v1/search", files={"image": image}, data={"k": "3"})
                if response.status_code == 200:
                    responses.append(response.json())
                else:
                    failures.append(response.text)

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and not failures and time.monotonic() < deadline:
            done.wait(0.01)

    with live_server(f"models:/{NAME}@{alias}", SETTINGS) as server:
        threads = [threading.Thread(target=send_searches, args=(server.url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in (2, 1, 2):
            set_alias(alias, version)
            wait_for(lambda version=version: server.service.current().version == version)
            num_responses = len(responses)
            # A request that began before an earlier move may end after it, so only the service's own version shows that it has moved.
            wait_for(lambda version=version, start=num_responses: version in {item["version"] for item in responses[start:]})
        done.set()
        for thread in threads:
            thread.join()
        metrics = server.service.metrics.text().decode()
    assert not failures
    assert "deeprank_releases_loaded_total 4.0" in metrics
    assert {response["version"] for response in responses} == {1, 2}
    for response in responses:
        distances = tuple(round(neighbor["distance"], 4) for neighbor in response["neighbors"])
        assert expected_distances.setdefault(response["version"], distances) == distances
        assert response["model"] == f"models:/{NAME}/{response['version']}"
    assert expected_distances[1] != expected_distances[2]


def test_without_a_release_the_service_is_not_ready(alias: str) -> None:
    with live_server(f"models:/{NAME}@soon", SETTINGS) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200
        readiness = client.get("/readyz")
        assert (readiness.status_code, readiness.json()["status"]) == (503, "no release")
        refusal = client.post("/v1/search", json={"id": "0" * 64})
        assert (refusal.status_code, refusal.headers["content-type"]) == (503, "application/problem+json")
        assert refusal.headers["retry-after"]
        MlflowClient().set_registered_model_alias(NAME, "soon", "2")
        deadline = time.monotonic() + 60
        while server.service.loaded is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get("/readyz").json()["version"] == 2
