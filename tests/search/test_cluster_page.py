"""The page of clusters holds all of them, leads everywhere, and needs nothing else."""

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
from deeprank.search import cluster_page as module
from deeprank.search.cluster_page import walk
from deeprank.search.clusters import Clusters, ClusterSettings, cluster
from tests.drawing import put_all

VOID = {"meta", "img", "path", "polyline", "circle", "br"}


class _Page(HTMLParser):
    """What is in a page; complains of tags that do not close."""

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
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)


@pytest.fixture(scope="module")
def clusters(embeddings: np.ndarray) -> Clusters:
    return cluster(embeddings, ClusterSettings(clusters=7))


@pytest.fixture(scope="module")
def text(catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> str:
    return walk(catalogue, embeddings, clusters)


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


def test_every_cluster_and_section_is_there_once_and_every_link_leads_somewhere(page: _Page, clusters: Clusters) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert [name for name in page.ids if name.startswith("cluster-")] == [f"cluster-{number}" for number in range(7)]
    assert [name for name in page.ids if name.startswith("section-")] == [f"section-{i}" for i in range(len(clusters.section_nodes))]
    assert {link[1:] for link in page.links} <= set(page.ids)
    # From the map, and from a cluster before or behind it.
    for number in range(7):
        assert page.links.count(f"#cluster-{number}") >= 2


def test_nothing_is_fetched_and_nothing_is_run(text: str, page: _Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|javascript:|\son\w+=", re.sub(r"base64,[\w+/=]*", "", text))
    assert all(link.startswith("#") for link in page.links)


def test_every_image_of_few_is_there_once(text: str, page: _Page, catalogue: Catalogue, clusters: Clusters) -> None:
    shown = [image["title"].split(",")[0] for image in page.images]
    pictured = clusters.representatives[: len(clusters.centroids)]
    assert sorted([*shown, *catalogue.frame["path"].iloc[pictured]]) == sorted(catalogue.frame["path"])
    for source in [image["src"] for image in page.images][:3]:
        assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (96, 96)


def test_sizes_and_shares_agree_with_counting(page: _Page, catalogue: Catalogue, clusters: Clusters) -> None:
    words = " ".join(" ".join(page.text).split())
    for number in range(7):
        labels = catalogue.frame["label"].to_numpy()[clusters.assigned == number]
        names, counts = np.unique(labels, return_counts=True)
        name = names[counts.argmax()].rsplit("/", 1)[-1]
        share = f"{100 * counts.max() / len(labels):.0f} % {name}"
        assert re.search(rf"\b{number} {re.escape(name)} .{{0,20}}\b{len(labels)} images? {re.escape(share)}", words)


def test_images_of_other_classes_are_marked(text: str, catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> None:
    labels = catalogue.frame["label"].to_numpy()
    marked = set(re.findall(r'class="photo odd"><img src="[^"]*"[^>]* title="([^,"]*),', text))
    expected = set()
    for number in range(7):
        inside = np.flatnonzero(clusters.assigned == number)
        names, counts = np.unique(labels[inside], return_counts=True)
        others = inside[labels[inside] != names[counts.argmax()]]
        expected |= set(catalogue.frame["path"].iloc[np.setdiff1d(others, clusters.representatives[:7])])
    assert marked == expected


def test_the_nearest_clusters_are_named(text: str, clusters: Clusters) -> None:
    for number in range(7):
        card = text.partition(f'id="cluster-{number}"')[2].partition("</article>")[0]
        near = [int(found) for found in re.findall(r'href="#cluster-(\d+)"', card.partition('class="near"')[2])]
        distance = np.linalg.norm(clusters.centroids - clusters.centroids[number], axis=1)
        assert near == np.argsort(distance)[1:5].tolist()


@pytest.mark.parametrize("total", [4, 15, 30])
def test_there_are_no_more_images_than_the_page_bears(
    catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    monkeypatch.setattr(module, "TOTAL", total)
    text = walk(catalogue, embeddings, clusters)
    assert text.count("data:image/webp") <= total
    assert [name for name in _Page(text).ids if name.startswith("cluster-")] == [f"cluster-{number}" for number in range(7)]


def test_the_page_is_as_large_as_its_images_and_little_more(text: str) -> None:
    images = sum(len(found) for found in re.findall(r"base64,[\w+/=]*", text))
    assert len(text) - images < 60_000
    # 2,000 of them, and their captions, stay below 8 MB.
    assert images / text.count("base64,") < 3_600


def test_the_same_clusters_give_the_same_page(text: str, catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> None:
    assert walk(catalogue, embeddings, clusters) == text


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_there_is_a_page_for_any_number_of_clusters(catalogue: Catalogue, embeddings: np.ndarray, wanted: int) -> None:
    clusters = cluster(embeddings, ClusterSettings(clusters=wanted))
    page = _Page(walk(catalogue, embeddings, clusters))
    assert sum(name.startswith("cluster-") for name in page.ids) == len(clusters.centroids)
    assert ("polyline" in page.tags) == (wanted == 0)


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    names = ["<script>alert(1)", "a&amp;b \"x' onload=1", "{{ 7 * 7 }}"]
    put_all(tmp_path / "images", {f"{name}/<b>{i}.png": 10 * at + i for at, name in enumerate(names) for i in range(4)})
    catalogue = ingest(tmp_path / "images", IngestSettings(), str(tmp_path / "catalogues"), progress=False)[0]
    assert sorted(set(catalogue.frame["label"])) == sorted(names)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((len(catalogue.frame), 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    page = _Page(walk(catalogue, points, cluster(points, ClusterSettings(clusters=4))))
    assert not {"script", "b>0"} & set(page.tags)
    assert any("<script>alert(1)" in words for words in page.text)
    assert any("{{ 7 * 7 }}" in words for words in page.text)
    assert not [image for image in page.images if set(image) - {"src", "width", "height", "alt", "title"}]


def test_circles_on_the_map_do_not_lie_over_each_other() -> None:
    rng = np.random.default_rng(0)
    radius = rng.uniform(1, 4, 60)
    place = module._apart(rng.uniform(20, 40, (60, 2)), radius)
    distance = np.linalg.norm(place[:, None] - place, axis=2) + 1e3 * np.eye(60)
    assert (distance >= radius[:, None] + radius - 0.5).all()
    assert (place >= radius[:, None] - 1e-9).all()
    assert (place <= module.MAP_SHAPE - radius[:, None] + 1e-9).all()
