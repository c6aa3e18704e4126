"""The registered model, loaded and queried through MLflow."""

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

from deeprank.errors import DataError
from deeprank.registry.pyfunc_model import NUM_NEIGHBORS
from deeprank.registry.releases import open_release
from deeprank.registry.searcher import Searcher
from tests.registry_fixtures import NAME, Store


@pytest.fixture(scope="module")
def model(store: Store) -> mlflow.pyfunc.PyFuncModel:
    assert store.registered
    return mlflow.pyfunc.load_model(f"models:/{NAME}@champion")


def _model_input(files: list[Path]) -> pd.DataFrame:
    return pd.DataFrame({"image": [base64.b64encode(file.read_bytes()).decode() for file in files]})


def test_each_image_gets_its_neighbors(model: mlflow.pyfunc.PyFuncModel, synthetic_folder: Path) -> None:
    files = sorted(synthetic_folder.rglob("*.jpg"))[::20]
    predictions = model.predict(_model_input(files))
    searcher = Searcher(open_release(f"models:/{NAME}@champion"))
    expected = searcher.search([file.read_bytes() for file in files], NUM_NEIGHBORS)
    assert len(predictions) == len(files)
    for records, neighbors in zip(predictions, expected, strict=True):
        assert len(records) == NUM_NEIGHBORS
        assert [set(record) for record in records] == [{"path", "label", "distance", "cluster"}] * NUM_NEIGHBORS
        assert [record["path"] for record in records] == neighbors["path"].tolist()
        assert np.allclose([record["distance"] for record in records], neighbors["distance"], atol=1e-5)


def test_bytes_that_are_not_an_image_are_refused(model: mlflow.pyfunc.PyFuncModel) -> None:
    with pytest.raises(Exception, match="not an image in a format that can be read"):
        model.predict(pd.DataFrame({"image": [base64.b64encode(b"text").decode()]}))


def test_base64_of_every_form_is_taken(model: mlflow.pyfunc.PyFuncModel, synthetic_folder: Path) -> None:
    file = min(synthetic_folder.rglob("*.jpg")).read_bytes()
    plain, wrapped = base64.b64encode(file).decode(), base64.encodebytes(file).decode()
    first, *others = model.predict(pd.DataFrame({"image": [plain, wrapped, f"data:image/jpeg;base64,{plain}"]}))
    assert [[record["path"] for record in records] for records in others] == [[record["path"] for record in first]] * 2


def test_the_damaged_one_of_several_images_is_named(model: mlflow.pyfunc.PyFuncModel, synthetic_folder: Path) -> None:
    images = _model_input(sorted(synthetic_folder.rglob("*.jpg"))[:2])["image"].tolist()
    for damaged, message in ((images[1][:400], "image 2 of 2: damaged or truncated"), ("@", "image 2 of 2: not valid base64")):
        with pytest.raises(DataError, match=message):
            model.predict(pd.DataFrame({"image": [images[0], damaged]}))


def test_signature_names_the_input_column(model: mlflow.pyfunc.PyFuncModel) -> None:
    assert model.metadata.signature.inputs.input_names() == ["image"]


def test_input_example_can_be_predicted(model: mlflow.pyfunc.PyFuncModel) -> None:
    (records,) = model.predict(model.input_example)
    assert len(records) == NUM_NEIGHBORS


@pytest.mark.slow
def test_mlflow_model_server_returns_neighbors(store: Store, synthetic_folder: Path, tracking: Path) -> None:
    assert store.registered
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
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
    # MLflow finds uvicorn on PATH, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The server starts workers; killing its process group ends all of them.
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
            response = client.post("/invocations", json={"dataframe_split": _model_input(files).to_dict("split", index=False)})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert response.status_code == 200, response.text
    predictions = response.json()["predictions"]
    assert [len(records) for records in predictions] == [NUM_NEIGHBORS, NUM_NEIGHBORS]
    expected = Searcher(open_release(f"models:/{NAME}@champion")).search([file.read_bytes() for file in files], NUM_NEIGHBORS)
    for neighbors, records in zip(expected, predictions, strict=True):
        assert [record["path"] for record in records] == neighbors["path"].tolist()
        assert np.allclose([record["distance"] for record in records], neighbors["distance"], atol=1e-4)
