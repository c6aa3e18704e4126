"""Routes that browse the catalogue: thumbnails, classes, samples and clusters."""

import io

import httpx
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.registry.searcher import Searcher
from tests.serving.http_helpers import assert_problem


def test_an_image_is_a_small_jpeg_that_can_be_cached(client: httpx.Client, catalogue: Catalogue) -> None:
    id = catalogue.frame["id"][5]
    response = client.get(f"/v1/images/{id}", params={"size": 32})
    assert response.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(response.content)).size) == 32
    assert "immutable" in response.headers["cache-control"]
    cached = client.get(f"/v1/images/{id}", params={"size": 32}, headers={"If-None-Match": response.headers["etag"]})
    assert (cached.status_code, cached.content) == (304, b"")
    assert client.get(f"/v1/images/{id}").content == catalogue.read_jpegs([5])[0]
    assert_problem(client.get(f"/v1/images/{'0' * 64}"), 404, "no image 0000")
    assert_problem(client.get("/v1/images/..%2f..%2fetc%2fpasswd"), 404, "Not Found")
    assert_problem(client.get("/v1/images/xyz"), 422, "id")
    assert_problem(client.get(f"/v1/images/{id}", params={"size": 257}), 422, "size")


def test_classes_have_their_folders_and_image_counts(client: httpx.Client, catalogue: Catalogue) -> None:
    classes = {item["label"]: item for item in client.get("/v1/classes").json()["classes"]}
    for label, item in classes.items():
        matches = catalogue.frame["label"].map(lambda other, label=label: f"{other}/".startswith(f"{label}/"))
        assert item["num_images"] == matches.sum()
    assert {label for label, item in classes.items() if item["is_class"]} == set(catalogue.frame["label"])
    assert sum(item["num_images"] for label, item in classes.items() if "/" not in label) == len(catalogue.frame)


def test_samples_are_of_different_classes(client: httpx.Client, catalogue: Catalogue) -> None:
    samples = client.get("/v1/samples").json()["samples"]
    assert sorted(sample["label"] for sample in samples) == sorted(catalogue.frame["label"].unique())
    assert len(client.get("/v1/samples", params={"count": 2}).json()["samples"]) == 2


def test_clusters_and_their_members_can_be_paged(client: httpx.Client, searcher: Searcher) -> None:
    rows = searcher.index.rows
    clusters = client.get("/v1/clusters").json()["clusters"]
    assert {cluster["cluster"]: cluster["size"] for cluster in clusters} == rows["cluster"].value_counts().to_dict()
    largest = clusters[0]
    members = rows[rows["cluster"] == largest["cluster"]]
    assert largest["purity"] == pytest.approx((members["label"] == largest["majority_label"]).mean())
    assert set(largest["representatives"]) <= set(members["id"])
    ids, offset = [], 0
    while offset is not None:
        page = client.get(f"/v1/clusters/{largest['cluster']}", params={"offset": offset, "limit": 3}).json()
        ids += [image["id"] for image in page["members"]]
        offset = page["next_offset"]
    assert ids == members["id"].tolist()
    assert_problem(client.get("/v1/clusters/9999"), 404, "no cluster 9999")
