"""Routes that embed and compare images, over a real connection: results as of the library, and refused requests."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.registry.searcher import Searcher
from tests.serving.http_helpers import assert_problem, to_base64, upload_files


def test_an_upload_gets_the_neighbors_of_the_library(client: httpx.Client, searcher: Searcher, files: list[bytes]) -> None:
    response = client.post("/v1/search", files=upload_files(files[7]), data={"k": "5"}).json()
    (expected,) = searcher.search([files[7]], 5)
    neighbors = response["neighbors"]
    assert [neighbor["id"] for neighbor in neighbors] == expected["id"].tolist()
    assert [neighbor["label"] for neighbor in neighbors] == expected["label"].tolist()
    assert np.allclose([neighbor["distance"] for neighbor in neighbors], expected["distance"], atol=1e-5)
    assert set(neighbors[0]) == {"id", "path", "label", "distance", "cluster", "split"}
    assert (response["version"], response["model"]) == (None, "release")
    assert response["duration_ms"] > 0


def test_base64_file_and_id_get_the_same_neighbors(client: httpx.Client, catalogue: Catalogue, files: list[bytes]) -> None:
    responses = (
        client.post("/v1/search", files=upload_files(files[3]), data={"k": "4"}),
        client.post("/v1/search", json={"image": to_base64(files[3]), "k": 4}),
        client.post("/v1/search", json={"images": [to_base64(files[3])], "k": 4}),
        client.post("/v1/search", json={"id": catalogue.frame["id"][3], "k": 4}),
    )
    results = [[(neighbor["id"], round(neighbor["distance"], 4)) for neighbor in response.json()["neighbors"]] for response in responses]
    assert results[0] == results[1] == results[2] == results[3]
    assert results[0][0] == (catalogue.frame["id"][3], 0)


def test_several_images_form_one_query(
    client: httpx.Client, searcher: Searcher, files: list[bytes], embeddings: np.ndarray, catalogue: Catalogue
) -> None:
    response = client.post("/v1/search", files=upload_files(files[0], files[20]), data={"k": "6"}).json()
    mean = embeddings[[0, 20]].astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32)
    (expected,) = searcher.index.search(mean, 6)
    ids = [neighbor["id"] for neighbor in response["neighbors"]]
    # The two images are at the same distance.
    assert (set(ids[:2]), ids[2:]) == ({catalogue.frame["id"][0], catalogue.frame["id"][20]}, expected["id"].tolist()[2:])
    # The squared distance to several images is the mean of the squared distances to each of them.
    rows = searcher.index.positions_of(expected["id"].tolist())
    squares = [((searcher.index.embeddings(rows) - view) ** 2).sum(axis=1) for view in embeddings[[0, 20]]]
    assert expected["distance"].to_numpy() == pytest.approx(np.sqrt(np.mean(squares, axis=0)), abs=1e-3)
    assert (response["familiarity"], response["novel"]) == (1, False)


def test_neighbors_are_limited_by_label_and_distance(client: httpx.Client, catalogue: Catalogue) -> None:
    id, label = catalogue.frame["id"][0], catalogue.frame["label"][30]
    parent = label.rpartition("/")[0]
    for prefix in (label, parent, f"/{parent}/"):
        response = client.post("/v1/search", json={"id": id, "k": 100, "label_prefix": prefix}).json()
        matches = catalogue.frame["label"].map(lambda label, prefix=prefix: f"{label}/".startswith(f"{prefix.strip('/')}/"))
        assert {neighbor["id"] for neighbor in response["neighbors"]} == set(catalogue.frame["id"][matches])
    neighbors = client.post("/v1/search", json={"id": id, "k": 100}).json()["neighbors"]
    limit = neighbors[9]["distance"] + 1e-9
    assert client.post("/v1/search", json={"id": id, "k": 100, "max_distance": limit}).json()["neighbors"] == neighbors[:10]
    assert client.post("/v1/search", json={"id": id, "label_prefix": label, "max_distance": 0}).json()["neighbors"] == []
    unknown = client.post("/v1/search", json={"id": id, "label_prefix": label.upper()})
    assert_problem(unknown, 422, f"no image has the label {label.upper()} or one below it; nearest: {label}")


def test_embeddings_and_distances_are_those_of_the_library(
    client: httpx.Client, catalogue: Catalogue, files: list[bytes], embeddings: np.ndarray
) -> None:
    response = client.post("/v1/embed", files=upload_files(*files[:3])).json()
    assert np.allclose(response["embeddings"], embeddings[:3], atol=1e-5)
    ids = catalogue.frame["id"].tolist()
    expected = float(np.linalg.norm(embeddings[2] - embeddings[40]))
    for body in (
        {"images": [to_base64(files[2]), to_base64(files[40])]},
        {"ids": [ids[2], ids[40]]},
        {"image": to_base64(files[2]), "id": ids[40]},
    ):
        assert client.post("/v1/distance", json=body).json()["distance"] == pytest.approx(expected, abs=1e-5)
    mixed = client.post("/v1/distance", files=upload_files(files[2]), data={"id": ids[40]})
    assert mixed.json()["distance"] == pytest.approx(expected, abs=1e-5)


def test_an_explanation_has_two_overlays(client: httpx.Client, catalogue: Catalogue, files: list[bytes], embeddings: np.ndarray) -> None:
    response = client.post("/v1/explain", json={"image": to_base64(files[2]), "id": catalogue.frame["id"][40]}).json()
    assert response["similarity"] == pytest.approx(float(embeddings[2] @ embeddings[40]), abs=1e-4)
    overlays = [Image.open(io.BytesIO(base64.b64decode(response[name]))) for name in ("first_overlay", "second_overlay")]
    assert [overlay.format for overlay in overlays] == ["PNG", "PNG"]
    assert overlays[0].tobytes() != overlays[1].tobytes()


@pytest.mark.parametrize(
    "body", [{}, {"image": "@@@"}, {"image": 5}, {"k": 0, "id": "0" * 64}, {"path": "/etc/passwd"}, {"id": "../x"}, [], 1]
)
def test_an_invalid_body_is_refused(client: httpx.Client, body: object) -> None:
    problem = assert_problem(client.post("/v1/search", json=body), 422, "")
    assert all({"field", "message"} == set(error) for error in problem["errors"])


def test_every_route_takes_base64_of_every_form(client: httpx.Client, files: list[bytes]) -> None:
    plain = [to_base64(file) for file in files[:2]]
    wrapped = [base64.encodebytes(file).decode().replace("\n", "\r\n") for file in files[:2]]
    urls = [f"data:image/jpeg;base64,{text}" for text in plain]
    for route in ("search", "embed", "distance", "explain"):
        expected, *others = (client.post(f"/v1/{route}", json={"images": images}) for images in (plain, wrapped, urls))
        assert expected.status_code == 200
        for other in others:
            assert {**other.json(), "duration_ms": 0} == {**expected.json(), "duration_ms": 0}


@pytest.mark.parametrize("route", ["search", "embed", "explain"])
def test_the_damaged_one_of_several_images_is_named(client: httpx.Client, files: list[bytes], route: str) -> None:
    damaged = files[1][: len(files[1]) // 2]
    assert_problem(client.post(f"/v1/{route}", files=upload_files(files[0], damaged)), 422, "image 2 of 2: damaged or truncated")
    images = [to_base64(files[0]), to_base64(damaged)]
    assert_problem(client.post(f"/v1/{route}", json={"images": images}), 422, "image 2 of 2: damaged or truncated")
    assert_problem(client.post(f"/v1/{route}", json={"images": [images[0], "@"]}), 422, "images.1: Value error, not valid base64")


def test_an_unreadable_body_is_refused_with_the_reason(client: httpx.Client, files: list[bytes]) -> None:
    assert_problem(client.post("/v1/search", files=upload_files(b"text")), 422, "not an image")
    assert_problem(client.post("/v1/search", files=upload_files(b"")), 422, "empty")
    assert_problem(client.post("/v1/search", files=upload_files(files[0][: len(files[0]) // 2])), 422, "truncated")
    assert_problem(client.post("/v1/search", data={"image": "https://example.org/a.jpg"}), 415, "multipart")
    as_text = {"image": (None, "https://example.org/a.jpg")}
    assert_problem(client.post("/v1/search", files=as_text), 422, "image must be a file")
    assert_problem(client.post("/v1/search", files=upload_files(*files[:11])), 400, "Too many files")
    assert_problem(client.post("/v1/search", content=b"{", headers={"content-type": "application/json"}), 422, "JSON")
    assert_problem(client.post("/v1/search", content=b"--x", headers={"content-type": "multipart/form-data"}), 400, "boundary")
    assert_problem(client.post("/v1/search", json={"id": "f" * 64}), 422, "no image ffff")
    assert_problem(client.post("/v1/distance", json={"ids": ["f" * 64]}), 422, "two images")
