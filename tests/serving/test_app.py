"""The HTTP service, asked over a real connection: what it answers, and how it refuses."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher, together
from deeprank.serving.batching import BatchSettings
from deeprank.serving.middleware import Limits
from deeprank.serving.service import ServeSettings
from tests.drawing import encoded
from tests.serving.running import Running, running

SMALL_UPLOADS = ServeSettings(
    batching=BatchSettings(nets=2, decoders=2), limits=Limits(upload_bytes=200_000, pixels=1_000_000, seconds=0.5, head_seconds=0.5)
)
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with running(str(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def strict(folder: Path) -> Iterator[Running]:
    """A server with small limits that wants a token."""
    with running(str(folder), SMALL_UPLOADS, TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def searcher(folder: Path) -> Searcher:
    return Searcher(Release(folder))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uploads(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("../../etc/passwd", image)) for image in images]


def assert_problem(response: httpx.Response, status: int, detail: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status
    assert found["instance"] == response.request.url.path
    assert {"type", "title"} <= found.keys()
    assert detail in found["detail"]
    assert "Traceback" not in response.text
    return found


def test_an_uploaded_image_is_answered_as_the_library_answers(client: httpx.Client, searcher: Searcher, files: list[bytes]) -> None:
    answer = client.post("/v1/search", files=uploads(files[7]), data={"k": "5"}).json()
    (expected,) = searcher.search([files[7]], 5)
    assert [one["id"] for one in answer["neighbors"]] == expected["id"].tolist()
    assert [one["label"] for one in answer["neighbors"]] == expected["label"].tolist()
    assert np.allclose([one["distance"] for one in answer["neighbors"]], expected["distance"], atol=1e-5)
    assert set(answer["neighbors"][0]) == {"id", "path", "label", "distance", "cluster", "split"}
    assert (answer["version"], answer["model"]) == (None, "release")
    assert answer["took_ms"] > 0


def test_base64_file_and_id_find_the_same(client: httpx.Client, catalogue: Catalogue, files: list[bytes]) -> None:
    ways = (
        client.post("/v1/search", files=uploads(files[3]), data={"k": "4"}),
        client.post("/v1/search", json={"image": b64(files[3]), "k": 4}),
        client.post("/v1/search", json={"images": [b64(files[3])], "k": 4}),
        client.post("/v1/search", json={"id": catalogue.frame["id"][3], "k": 4}),
    )
    found = [[(one["id"], round(one["distance"], 4)) for one in way.json()["neighbors"]] for way in ways]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][0] == (catalogue.frame["id"][3], 0)


def test_several_images_are_one_question(client: httpx.Client, searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    answer = client.post("/v1/search", files=uploads(files[0], files[20]), data={"k": "6"}).json()
    mean = embeddings[0].astype(np.float64) + embeddings[20]
    (expected,) = searcher.index.search((mean / np.linalg.norm(mean))[None].astype(np.float32), 6)
    assert [one["id"] for one in answer["neighbors"]] == expected["id"].tolist()
    assert np.allclose(np.linalg.norm(together(embeddings[[0, 20]])), 1)


def test_neighbors_can_be_asked_of_one_label_and_up_to_a_distance(client: httpx.Client, catalogue: Catalogue) -> None:
    id, label = catalogue.frame["id"][0], catalogue.frame["label"][30]
    parent = label.rpartition("/")[0]
    for under in (label, parent, f"/{parent}/"):
        answer = client.post("/v1/search", json={"id": id, "k": 100, "label_prefix": under}).json()
        inside = catalogue.frame["label"].map(lambda one, under=under: f"{one}/".startswith(f"{under.strip('/')}/"))
        assert {one["id"] for one in answer["neighbors"]} == set(catalogue.frame["id"][inside])
    everything = client.post("/v1/search", json={"id": id, "k": 100}).json()["neighbors"]
    limit = everything[9]["distance"] + 1e-9
    assert client.post("/v1/search", json={"id": id, "k": 100, "max_distance": limit}).json()["neighbors"] == everything[:10]
    assert client.post("/v1/search", json={"id": id, "label_prefix": "no/such/label"}).json()["neighbors"] == []


def test_embeddings_and_distances_are_the_librarys(
    client: httpx.Client, catalogue: Catalogue, files: list[bytes], embeddings: np.ndarray
) -> None:
    answer = client.post("/v1/embed", files=uploads(*files[:3])).json()
    assert np.allclose(answer["embeddings"], embeddings[:3], atol=1e-5)
    ids = catalogue.frame["id"].tolist()
    expected = float(np.linalg.norm(embeddings[2] - embeddings[40]))
    for question in ({"images": [b64(files[2]), b64(files[40])]}, {"ids": [ids[2], ids[40]]}, {"image": b64(files[2]), "id": ids[40]}):
        assert client.post("/v1/distance", json=question).json()["distance"] == pytest.approx(expected, abs=1e-5)
    mixed = client.post("/v1/distance", files=uploads(files[2]), data={"id": ids[40]})
    assert mixed.json()["distance"] == pytest.approx(expected, abs=1e-5)


def test_an_explanation_is_two_pictures(client: httpx.Client, catalogue: Catalogue, files: list[bytes], embeddings: np.ndarray) -> None:
    answer = client.post("/v1/explain", json={"image": b64(files[2]), "id": catalogue.frame["id"][40]}).json()
    assert answer["similarity"] == pytest.approx(float(embeddings[2] @ embeddings[40]), abs=1e-4)
    pictures = [Image.open(io.BytesIO(base64.b64decode(answer[name]))) for name in ("first", "second")]
    assert [picture.format for picture in pictures] == ["PNG", "PNG"]
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_a_image_of_the_catalogue_comes_small_and_may_be_kept(client: httpx.Client, catalogue: Catalogue) -> None:
    id = catalogue.frame["id"][5]
    response = client.get(f"/v1/images/{id}", params={"size": 32})
    assert response.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(response.content)).size) == 32
    assert "immutable" in response.headers["cache-control"]
    again = client.get(f"/v1/images/{id}", params={"size": 32}, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/v1/images/{id}").content == catalogue.images([5])[0]
    assert_problem(client.get(f"/v1/images/{'0' * 64}"), 404, "no image 0000")
    assert_problem(client.get("/v1/images/..%2f..%2fetc%2fpasswd"), 404, "Not Found")
    assert_problem(client.get("/v1/images/xyz"), 422, "id")
    assert_problem(client.get(f"/v1/images/{id}", params={"size": 257}), 422, "size")


def test_classes_come_with_their_folders_and_counts(client: httpx.Client, catalogue: Catalogue) -> None:
    found = {one["label"]: one for one in client.get("/v1/classes").json()["classes"]}
    for label, one in found.items():
        assert one["count"] == catalogue.frame["label"].map(lambda other, label=label: f"{other}/".startswith(f"{label}/")).sum()
    assert {label for label, one in found.items() if one["is_class"]} == set(catalogue.frame["label"])
    assert sum(one["count"] for label, one in found.items() if "/" not in label) == len(catalogue.frame)


def test_samples_are_of_different_classes(client: httpx.Client, catalogue: Catalogue) -> None:
    found = client.get("/v1/samples").json()["samples"]
    assert sorted(one["label"] for one in found) == sorted(catalogue.frame["label"].unique())
    assert len(client.get("/v1/samples", params={"count": 2}).json()["samples"]) == 2


def test_clusters_can_be_walked_through(client: httpx.Client, searcher: Searcher) -> None:
    rows = searcher.index.rows
    clusters = client.get("/v1/clusters").json()["clusters"]
    assert {one["cluster"]: one["size"] for one in clusters} == rows["cluster"].value_counts().to_dict()
    largest = clusters[0]
    inside = rows[rows["cluster"] == largest["cluster"]]
    assert largest["share"] == pytest.approx((inside["label"] == largest["label"]).mean())
    assert set(largest["representatives"]) <= set(inside["id"])
    seen, offset = [], 0
    while offset is not None:
        page = client.get(f"/v1/clusters/{largest['cluster']}", params={"offset": offset, "limit": 3}).json()
        seen += [one["id"] for one in page["members"]]
        offset = page["next"]
    assert seen == inside["id"].tolist()
    assert_problem(client.get("/v1/clusters/9999"), 404, "no cluster 9999")


def test_the_release_is_described(client: httpx.Client, searcher: Searcher, catalogue: Catalogue) -> None:
    facts = client.get("/v1/model").json()
    assert facts["weights"] == searcher.release.bundle.weights_hash
    assert (facts["images"], facts["catalogue_version"], facts["embedding_dim"]) == (len(catalogue.frame), catalogue.version, 16)
    assert facts["metrics"]["fine.recall_at_1"]["value"] == 0.6
    assert facts["checked"] is True
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["refused"]) == (200, "ready", None)


def test_requests_are_counted(client: httpx.Client, catalogue: Catalogue) -> None:
    client.post("/v1/search", json={"id": catalogue.frame["id"][0]})
    client.get("/no/such/route")
    text = client.get("/metrics").text
    assert 'deeprank_requests_total{method="POST",route="/v1/search",status="200"}' in text
    assert 'deeprank_requests_total{method="GET",route="other",status="404"}' in text
    assert "deeprank_batch_images_bucket" in text
    assert "deeprank_waiting_images 0.0" in text
    assert "deeprank_swaps_total 1.0" in text


@pytest.mark.parametrize(
    "question", [{}, {"image": "@@@"}, {"image": 5}, {"k": 0, "id": "0" * 64}, {"path": "/etc/passwd"}, {"id": "../x"}, [], 1]
)
def test_a_question_that_is_not_as_it_should_be_is_refused(client: httpx.Client, question: object) -> None:
    found = assert_problem(client.post("/v1/search", json=question), 422, "")
    assert all({"where", "what"} == set(error) for error in found["errors"])


def test_what_cannot_be_read_is_refused_with_the_reason(client: httpx.Client, files: list[bytes]) -> None:
    assert_problem(client.post("/v1/search", files=uploads(b"text")), 422, "not an image")
    assert_problem(client.post("/v1/search", files=uploads(b"")), 422, "empty")
    assert_problem(client.post("/v1/search", files=uploads(files[0][: len(files[0]) // 2])), 422, "truncated")
    assert_problem(client.post("/v1/search", data={"image": "https://example.org/a.jpg"}), 415, "multipart")
    as_text = {"image": (None, "https://example.org/a.jpg")}
    assert_problem(client.post("/v1/search", files=as_text), 422, "image must be a file")
    assert_problem(client.post("/v1/search", files=uploads(*files[:11])), 400, "Too many files")
    assert_problem(client.post("/v1/search", content=b"{", headers={"content-type": "application/json"}), 422, "JSON")
    assert_problem(client.post("/v1/search", content=b"--x", headers={"content-type": "multipart/form-data"}), 400, "boundary")
    assert_problem(client.post("/v1/search", json={"id": "f" * 64}), 422, "no image ffff")
    assert_problem(client.post("/v1/distance", json={"ids": ["f" * 64]}), 422, "two images")


def test_unknown_routes_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/nothing"), 404, "Not Found")
    response = client.get("/v1/search")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_an_unexpected_failure_is_a_problem_without_its_trace(
    server: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(server.service.served.searcher.index), "places_near", broken)
    response = client.post("/v1/search", json={"id": server.service.served.searcher.index.rows["id"][0]})
    assert_problem(response, 500, "its log says why")
    assert "secret" not in response.text


def test_answers_take_their_security_headers_along(client: httpx.Client) -> None:
    for response in (client.get("/healthz"), client.get("/no/such"), client.post("/v1/search")):
        policy = response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "server" not in response.headers


def test_a_token_is_wanted_where_there_is_one(strict: Running) -> None:
    with httpx.Client(base_url=strict.url) as client:
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": "Basic @"},
            {"Authorization": "Basic é"},
            {"Authorization": "Bearer é"},
        ):
            encoded_headers = {name: value.encode("latin-1") for name, value in headers.items()}
            response = client.get("/v1/model", headers=encoded_headers)
            assert_problem(response, 401, "token")
            assert "Bearer" in response.headers["www-authenticate"]
        assert client.get("/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/v1/model", auth=("anybody", TOKEN)).status_code == 200
        assert client.get("/metrics").status_code == 401


def test_what_is_too_large_is_refused_before_it_is_decoded(strict: Running) -> None:
    with httpx.Client(base_url=strict.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert_problem(client.post("/v1/search", files=uploads(bytes(300_000))), 413, "200,000 bytes")
        chunks = (bytes(10_000) for _ in range(30))
        assert_problem(client.post("/v1/search", content=chunks, headers={"content-type": "application/json"}), 413, "200,000 bytes")
        wide = encoded(Image.new("1", (2000, 1000)))
        assert_problem(client.post("/v1/search", files=uploads(wide)), 413, "2000 x 1000 pixels")
        assert strict.service.batcher.waiting == 0


def test_openapi_describes_questions_answers_and_problems_with_examples(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/search", "/v1/embed", "/v1/distance", "/v1/explain", "/v1/images/{id}", "/v1/model", "/readyz"}
    post = document["paths"]["/v1/search"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert post["requestBody"]["content"]["application/json"]["examples"]
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert document["components"]["schemas"]["Neighbors"]["examples"]
    assert "Problem" in document["components"]["schemas"]
