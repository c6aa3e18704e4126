"""The registered model, loaded as MLflow loads it and asked as MLflow asks it."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from deeprank.registry.pyfunc_model import NEIGHBORS
from deeprank.registry.releases import open_release
from deeprank.registry.searcher import Searcher
from tests.serving.conftest import NAME, Store


@pytest.fixture(scope="module")
def model(store: Store) -> mlflow.pyfunc.PyFuncModel:
    assert store.registered
    return mlflow.pyfunc.load_model(f"models:/{NAME}@champion")


def _asking(files: list[Path]) -> pd.DataFrame:
    return pd.DataFrame({"image": [base64.b64encode(file.read_bytes()).decode() for file in files]})


def test_each_image_is_answered_with_its_neighbors(model: mlflow.pyfunc.PyFuncModel, synthetic_folder: Path) -> None:
    files = sorted(synthetic_folder.rglob("*.jpg"))[::20]
    answers = model.predict(_asking(files))
    release = Searcher(open_release(f"models:/{NAME}@champion"))
    expected = release.search([file.read_bytes() for file in files], NEIGHBORS)
    assert len(answers) == len(files)
    for answer, found in zip(answers, expected, strict=True):
        assert len(answer) == NEIGHBORS
        assert [set(record) for record in answer] == [{"path", "label", "distance", "cluster"}] * NEIGHBORS
        assert [record["path"] for record in answer] == found["path"].tolist()
        assert np.allclose([record["distance"] for record in answer], found["distance"], atol=1e-5)


def test_what_is_no_image_is_refused_with_the_reason(model: mlflow.pyfunc.PyFuncModel) -> None:
    with pytest.raises(Exception, match="not an image in a format that can be read"):
        model.predict(pd.DataFrame({"image": [base64.b64encode(b"text").decode()]}))


def test_its_signature_says_what_it_wants(model: mlflow.pyfunc.PyFuncModel) -> None:
    assert model.metadata.signature.inputs.input_names() == ["image"]


def test_its_example_can_be_asked(model: mlflow.pyfunc.PyFuncModel) -> None:
    (answer,) = model.predict(model.input_example)
    assert len(answer) == NEIGHBORS


@pytest.mark.slow
def test_mlflows_own_server_answers(store: Store, synthetic_folder: Path, tracking: Path) -> None:
    assert store.registered
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        f"models:/{NAME}@champion",
        "--env-manager",
        "local",
        "--port",
        port,
    ]
    # MLflow calls uvicorn by its name, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # It starts workers of its own: all of them end with their group.
    server = subprocess.Popen(command, start_new_session=True, cwd=tracking, env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            for _ in range(600):
                assert server.poll() is None
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/ping").status_code == 200:
                        break
                time.sleep(0.2)
            files = sorted(synthetic_folder.rglob("*.jpg"))[:2]
            answer = client.post("/invocations", json={"dataframe_split": _asking(files).to_dict("split", index=False)})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert [len(neighbors) for neighbors in predictions] == [NEIGHBORS, NEIGHBORS]
    expected = Searcher(open_release(f"models:/{NAME}@champion")).search([file.read_bytes() for file in files], NEIGHBORS)
    for found, neighbors in zip(expected, predictions, strict=True):
        assert [neighbor["path"] for neighbor in neighbors] == found["path"].tolist()
        assert np.allclose([neighbor["distance"] for neighbor in neighbors], found["distance"], atol=1e-4)
