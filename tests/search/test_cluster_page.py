"""The page of clusters shows all clusters, its links lead somewhere, and it needs no other file."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.search.cluster_page import cluster_page
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters
from tests.drawing import put_all

VOID_TAGS = {"meta", "img", "path", "polyline", "circle", "br"}


class _Page(HTMLParser):
    """The parts of a page; asserts that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        if attributes.get("href"):
            self.links.append(str(attributes["href"]))
        if tag == "img":
            self.images.append(attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)


@pytest.fixture(scope="module")
def clusters(embeddings: np.ndarray) -> Clusters:
    return cluster_embeddings(embeddings, ClusterSettings(n_clusters=7))


@pytest.fixture(scope="module")
def text(catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> str:
    return cluster_page(catalogue, embeddings, clusters)


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


def test_clusters_appear_once_and_links_have_targets(page: _Page, clusters: Clusters) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert [name for name in page.ids if name.startswith("cluster-")] == [f"cluster-{number}" for number in range(7)]
    assert [name for name in page.ids if name.startswith("section-")] == [f"section-{i}" for i in range(len(clusters.section_nodes))]
    assert {link[1:] for link in page.links} <= set(page.ids)
    # A link from the map, and one from the previous or the next cluster.
    for number in range(7):
        assert page.links.count(f"#cluster-{number}") >= 2


def test_page_has_no_scripts_and_no_external_resources(text: str, page: _Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|javascript:|\son\w+=", re.sub(r"base64,[\w+/=]*", "", text))
    assert all(link.startswith("#") for link in page.links)


def test_every_image_of_a_small_catalogue_appears_once(text: str, page: _Page, catalogue: Catalogue, clusters: Clusters) -> None:
    paths = [image["title"].split(",")[0] for image in page.images]
    representatives = clusters.representatives[: len(clusters.centroids)]
    assert sorted([*paths, *catalogue.frame["path"].iloc[representatives]]) == sorted(catalogue.frame["path"])
    for source in [image["src"] for image in page.images][:3]:
        assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (96, 96)


def test_sizes_and_shares_are_those_of_counting(page: _Page, catalogue: Catalogue, clusters: Clusters) -> None:
    text = " ".join(" ".join(page.text).split())
    for number in range(7):
        labels = catalogue.frame["label"].to_numpy()[clusters.assignments == number]
        names, counts = np.unique(labels, return_counts=True)
        name = names[counts.argmax()].rsplit("/", 1)[-1]
        share = f"{100 * counts.max() / len(labels):.0f} % {name}"
        assert re.search(rf"\b{number} {re.escape(name)} .{{0,20}}\b{len(labels)} images? {re.escape(share)}", text)


def test_images_of_other_classes_are_marked(text: str, catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> None:
    labels = catalogue.frame["label"].to_numpy()
    marked = set(re.findall(r'class="image other"><img src="[^"]*"[^>]* title="([^,"]*),', text))
    expected = set()
    for number in range(7):
        inside = np.flatnonzero(clusters.assignments == number)
        names, counts = np.unique(labels[inside], return_counts=True)
        others = inside[labels[inside] != names[counts.argmax()]]
        expected |= set(catalogue.frame["path"].iloc[np.setdiff1d(others, clusters.representatives[:7])])
    assert marked == expected


def test_nearest_clusters_are_named(text: str, clusters: Clusters) -> None:
    for number in range(7):
        card = text.partition(f'id="cluster-{number}"')[2].partition("</article>")[0]
        neighbors = [int(cluster) for cluster in re.findall(r'href="#cluster-(\d+)"', card.partition('class="neighbors"')[2])]
        distances = np.linalg.norm(clusters.centroids - clusters.centroids[number], axis=1)
        assert neighbors == np.argsort(distances)[1:5].tolist()


@pytest.mark.parametrize("max_images", [4, 15, 30])
def test_number_of_images_on_the_page_is_limited(
    catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters, monkeypatch: pytest.MonkeyPatch, max_images: int
) -> None:
    monkeypatch.setattr("deeprank.search.cluster_page.MAX_PAGE_IMAGES", max_images)
    text = cluster_page(catalogue, embeddings, clusters)
    assert text.count("data:image/webp") <= max_images
    assert [name for name in _Page(text).ids if name.startswith("cluster-")] == [f"cluster-{number}" for number in range(7)]


def test_page_is_hardly_larger_than_its_images(text: str) -> None:
    image_chars = sum(len(uri) for uri in re.findall(r"base64,[\w+/=]*", text))
    assert len(text) - image_chars < 60_000
    # 2,000 images and their captions stay below 8 MB.
    assert image_chars / text.count("base64,") < 3_600


def test_same_clusters_give_the_same_page(text: str, catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> None:
    assert cluster_page(catalogue, embeddings, clusters) == text


@pytest.mark.parametrize("n_clusters", [0, 1, 2])
def test_any_number_of_clusters_has_a_page(catalogue: Catalogue, embeddings: np.ndarray, n_clusters: int) -> None:
    clusters = cluster_embeddings(embeddings, ClusterSettings(n_clusters=n_clusters))
    page = _Page(cluster_page(catalogue, embeddings, clusters))
    assert sum(name.startswith("cluster-") for name in page.ids) == len(clusters.centroids)
    assert ("polyline" in page.tags) == (n_clusters == 0)


def test_names_are_escaped(tmp_path: Path) -> None:
    names = ["<script>alert(1)", "a&amp;b \"x' onload=1", "{{ 7 * 7 }}"]
    put_all(tmp_path / "images", {f"{name}/<b>{i}.png": 10 * at + i for at, name in enumerate(names) for i in range(4)})
    catalogue = ingest(tmp_path / "images", IngestSettings(), str(tmp_path / "catalogues"), progress=False)[0]
    assert sorted(set(catalogue.frame["label"])) == sorted(names)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((len(catalogue.frame), 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    page = _Page(cluster_page(catalogue, points, cluster_embeddings(points, ClusterSettings(n_clusters=4))))
    assert not {"script", "b>0"} & set(page.tags)
    assert any("<script>alert(1)" in text for text in page.text)
    assert any("{{ 7 * 7 }}" in text for text in page.text)
    assert not [image for image in page.images if set(image) - {"src", "width", "height", "alt", "title"}]
