"""Following the alias in a real registry: taken when it is sound, refused when it is not, served on when the registry is away."""

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import httpx
import mlflow
import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.home import home
from deeprank.registry.canary import FILE, write_canary
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import Release, fetch, find
from deeprank.serving.alias_watcher import AliasWatcher
from deeprank.serving.batching import BatchSettings, NotReadyError
from deeprank.serving.service import AliasWatcherSettings, ServeSettings, Service
from tests.serving.conftest import Store, decision
from tests.serving.running import running

NAME, ALIAS = "followed", "live"
SETTINGS = ServeSettings(batching=BatchSettings(nets=1, decoders=2), follow=AliasWatcherSettings(every=0.05))


@pytest.fixture(scope="module")
def versions(store: Store, catalogue: Catalogue) -> None:
    """Two versions of a model: the first is the gate's champion."""
    for folder, new, old in ((store.folders[0], 0.6, None), (store.folders[2], 0.55, 0.6)):
        with mlflow.start_run(experiment_id=store.experiment):
            register(folder, RegisterSettings(name=NAME), decision(new, old), catalogue, "card")


@pytest.fixture
def alias(versions: None) -> Iterator[str]:
    """An alias of the test's own that points to version 1; nothing was fetched yet."""
    shutil.rmtree(home() / "releases" / NAME, ignore_errors=True)
    point(ALIAS, 1)
    yield ALIAS
    MlflowClient().delete_registered_model_alias(NAME, ALIAS)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(SETTINGS)
    yield service
    service.batcher.close()


def point(alias: str, version: int) -> None:
    MlflowClient().set_registered_model_alias(NAME, alias, str(version))


def kept(version: int) -> Path:
    """Return where the registry keeps a version's release."""
    return Path(unquote(urlparse(MlflowClient().get_model_version_download_uri(NAME, str(version))).path)) / "artifacts"


def test_a_release_is_taken_when_the_alias_moves_and_the_old_one_goes(service: Service, alias: str) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    follower.look()
    assert service.current().version == 1
    assert set(service.current().aliases) == {"champion", alias}
    old = weakref.ref(service.current().searcher)
    follower.look()
    assert service.current().searcher is old()
    point(alias, 2)
    follower.look()
    assert (service.current().version, service.current().model) == (2, f"models:/{NAME}/2")
    assert set(service.current().aliases) == {"challenger", alias}
    assert service.current().tags["gate.state"] == "held"
    gc.collect()
    assert old() is None


@pytest.mark.parametrize("part", ["bundle/model.safetensors", "index/rows.parquet", "evaluation/metrics.json"])
def test_a_damaged_release_is_not_taken_and_the_old_one_goes_on(service: Service, alias: str, tracking: Path, part: str) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    follower.look()
    damaged = kept(2) / part
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9] + b"\0" * 8)
    point(alias, 2)
    for _ in range(3):
        follower.look()
    damaged.write_bytes(whole)
    assert service.current().version == 1
    assert service.refused is not None
    assert service.refused.version == 2
    assert str(tracking) not in service.refused.reason
    assert "deeprank_refused_releases_total 1.0" in service.meters.text().decode()
    point(alias, 1)
    follower.look()
    assert service.refused is None


def test_what_was_refused_is_tried_again_as_long_as_nothing_answers(service: Service, alias: str) -> None:
    damaged = kept(1) / "index" / "rows.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9] + b"\0" * 8)
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    follower.look()
    assert service.served is None
    assert service.refused is not None
    damaged.write_bytes(whole)
    shutil.rmtree(home() / "releases" / NAME)
    follower.look()
    assert (service.current().version, service.refused) == (1, None)


def test_a_release_that_answers_otherwise_than_it_did_is_not_taken(service: Service, alias: str, store: Store) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    for version in (1, 2):
        write_canary(Release(store.folders[0]), kept(version) / FILE)
    follower.look()
    assert (service.current().version, service.current().checked) == (1, True)
    point(alias, 2)
    follower.look()
    for version in (1, 2):
        (kept(version) / FILE).unlink()
    assert service.current().version == 1
    assert service.refused is not None
    assert "other neighbors than when it was registered" in service.refused.reason


def test_while_the_registry_is_away_what_is_loaded_goes_on(service: Service, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    follower.look()
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        follower.look()
    assert service.current().version == 1
    assert service.registry is not None
    assert not service.registry.reachable
    assert service.registry.error
    point(alias, 2)
    follower.look()
    assert (service.current().version, service.registry.reachable) == (2, True)


def test_a_release_that_cannot_be_fetched_now_is_fetched_later(service: Service, alias: str) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@{alias}")
    follower.look()
    folder = kept(2)
    hidden = folder.rename(folder.with_name("hidden_dims"))
    point(alias, 2)
    follower.look()
    assert (service.current().version, service.refused) == (1, None)
    hidden.rename(folder)
    follower.look()
    assert service.current().version == 2


def test_an_alias_may_come_later_but_a_fixed_release_must_be_there(service: Service, alias: str) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}@later")
    follower.look()
    with pytest.raises(NotReadyError):
        service.current()
    assert service.registry is not None
    assert "has no alias later" in service.registry.error
    MlflowClient().set_registered_model_alias(NAME, "later", "1")
    follower.look()
    assert service.current().version == 1
    with pytest.raises(ModelError, match="is not in the registry"):
        AliasWatcher(service, f"models:/{NAME}/9").start()


def test_a_fixed_version_stays_when_the_alias_moves(service: Service, alias: str) -> None:
    follower = AliasWatcher(service, f"models:/{NAME}/1")
    follower.start()
    point(alias, 2)
    follower.stop()
    assert (service.current().version, service.current().model) == (1, f"models:/{NAME}/1")


def test_no_request_fails_while_the_alias_moves_and_each_answer_is_of_one_release(alias: str, synthetic_folder: Path) -> None:
    image = next(synthetic_folder.rglob("*.jpg")).read_bytes()
    distances = {}
    for version in (1, 2):
        fetch(find(NAME, str(version)))
    done, failed, answers = threading.Event(), [], []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                response = client.post("/v1/search", files={"image": image}, data={"k": "3"})
                if response.status_code == 200:
                    answers.append(response.json())
                else:
                    failed.append(response.text)

    with running(f"models:/{NAME}@{alias}", SETTINGS) as server:
        threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in (2, 1, 2):
            before = len(answers)
            point(alias, version)
            # Taken, and asked: on a busy machine the next move may come before the next answer.
            until = time.monotonic() + 60
            while version not in {answer["version"] for answer in answers[before:]} and not failed and time.monotonic() < until:
                done.wait(0.01)
        done.set()
        for thread in threads:
            thread.join()
        swaps = server.service.meters.text().decode()
    assert not failed
    assert "deeprank_swaps_total 4.0" in swaps
    assert {answer["version"] for answer in answers} == {1, 2}
    for answer in answers:
        found = tuple(round(one["distance"], 4) for one in answer["neighbors"])
        assert distances.setdefault(answer["version"], found) == found
        assert answer["model"] == f"models:/{NAME}/{answer['version']}"
    assert distances[1] != distances[2]


def test_without_a_release_the_service_says_that_it_is_not_ready(alias: str) -> None:
    with running(f"models:/{NAME}@soon", SETTINGS) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "no release")
        refused = client.post("/v1/search", json={"id": "0" * 64})
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert refused.headers["retry-after"]
        MlflowClient().set_registered_model_alias(NAME, "soon", "2")
        until = time.monotonic() + 60
        while server.service.served is None and time.monotonic() < until:
            time.sleep(0.01)
        assert client.get("/readyz").json()["version"] == 2
