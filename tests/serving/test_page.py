"""The page in a real browser: search with an image, continue from a neighbor, go back, filter, compare, browse the clusters."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageEnhance, ImageOps

from deeprank.serving.middleware import Limits
from deeprank.serving.service import ServeSettings
from tests.drawing import pattern
from tests.serving.live_server import LiveServer, live_server

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
expect = playwright.expect
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")]

PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1280, "height": 900}
TIMEOUT_MS = 20_000
TOKEN = "correct-horse-battery"
# An EXIF orientation: the image is shown turned by 90° clockwise.
ORIENTATION_90_CLOCKWISE = 6
PHONE_AND_DARK = pytest.mark.parametrize(
    ("name", "options"), [("phone", {"viewport": PHONE, "has_touch": True}), ("dark", {"color_scheme": "dark"})]
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def errors() -> list[str]:
    """Errors in the browser's console."""
    return []


def open_page(browser: Any, address: str, errors: list[str], **options: Any) -> Any:
    """Return a new tab at an address."""
    page = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options}).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    return page


def image_of_test_split(server: LiveServer, synthetic_folder: Path) -> tuple[Path, str]:
    """Return the file and the label of an image of the test split."""
    rows = server.service.current().searcher.index.rows
    row = rows[rows["split"] == "test"].iloc[0]
    return synthetic_folder / row["path"], row["label"]


def changed_copy(file: Path, folder: Path) -> Path:
    """Return a cropped and brighter copy of an image, which is in no index."""
    with Image.open(file) as image:
        width, height = image.size
        cropped = image.convert("RGB").crop((width // 20, height // 20, width - width // 20, height - height // 20))
    ImageEnhance.Brightness(cropped).enhance(1.1).save(folder / "copy.jpg", quality=90)
    return folder / "copy.jpg"


def assert_no_horizontal_scroll(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def assert_loaded(page: Any, images: str) -> None:
    """Wait until the first image is loaded and has pixels."""
    expect(page.locator(images).first).to_have_attribute("src", re.compile("^(blob:|data:image/png)"))
    expect(page.locator(images).first).to_have_js_property("complete", True)
    assert page.locator(images).first.evaluate("image => image.naturalWidth") > 0


@PHONE_AND_DARK
def test_search_continue_go_back_and_filter(
    server: LiveServer, browser: Any, synthetic_folder: Path, errors: list[str], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    file, label = image_of_test_split(server, synthetic_folder)
    page = open_page(browser, server.url, errors, **options)
    neighbors = page.locator("#neighbors .tile")
    assert_loaded(page, "#samples img")
    assert_no_horizontal_scroll(page)
    page.screenshot(path=tmp_path / f"start-{name}.png")

    page.locator("#file-input").set_input_files(changed_copy(file, tmp_path))
    expect(neighbors).to_have_count(12)
    expect(neighbors.first.locator("img")).to_have_attribute("alt", label)
    expect(neighbors.first).not_to_contain_text("0.000")
    assert_loaded(page, "#neighbors img")
    assert_loaded(page, "#query img")
    assert_no_horizontal_scroll(page)
    page.screenshot(path=tmp_path / f"search-{name}.png", full_page=True)

    neighbors.nth(1).locator("a").first.click()
    expect(page).to_have_url(re.compile("#image/[0-9a-f]{64}$"))
    expect(page.locator("#search-trail a")).to_have_count(2)
    expect(page.locator("#view-search .facts")).to_contain_text("12 are")
    page.go_back()
    expect(page).to_have_url(re.compile("#upload/1$"))
    expect(neighbors.first.locator("img")).to_have_attribute("alt", label)
    expect(page.locator("#search-trail a")).to_have_count(0)

    other = next(other for other in server.service.current().searcher.index.rows["label"] if other != label)
    page.locator("#label-prefix").fill(other)
    page.locator("#label-prefix").press("Enter")
    expect(neighbors.first.locator("img")).to_have_attribute("alt", other)
    expect(neighbors).to_have_count(8)
    page.locator("#label-prefix").fill("no such thing")
    page.locator("#label-prefix").press("Enter")
    expect(page.locator("#label-prefix-hint")).to_contain_text("No classes")
    page.locator("#label-prefix").fill("")
    expect(neighbors).to_have_count(12)
    page.locator("#k").select_option("24")
    expect(neighbors).to_have_count(24)
    assert_no_horizontal_scroll(page)
    assert errors == []


@PHONE_AND_DARK
def test_comparison_and_model_dialogs(
    server: LiveServer, browser: Any, errors: list[str], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    page = open_page(browser, f"{server.url}/#image/{server.service.current().searcher.index.rows['id'].iloc[0]}", errors, **options)
    compare_button = page.locator("#neighbors .tile").nth(1).get_by_role("button")
    compare_button.click()
    dialog = page.locator("#compare")
    expect(dialog.locator("img[src^='data:image/png']")).to_have_count(2)
    expect(dialog.locator("img")).to_have_count(4)
    expect(dialog.locator(".facts")).to_contain_text("Distance")
    assert_loaded(page, "#compare figure img")
    page.screenshot(path=tmp_path / f"compare-{name}.png")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(compare_button).to_be_focused()

    page.locator("#open-model").click()
    expect(page.locator("#metrics")).to_contain_text("The nearest image has the same class")
    expect(page.locator("#metrics")).to_contain_text("60.0 %")
    expect(page.locator("#model-facts")).to_contain_text("16 dimensions")
    page.screenshot(path=tmp_path / f"model-{name}.png")
    page.keyboard.press("Escape")
    assert_no_horizontal_scroll(page)
    assert errors == []


def test_clusters_can_be_browsed_and_their_addresses_shared(server: LiveServer, browser: Any, errors: list[str], tmp_path: Path) -> None:
    clusters = server.service.current().browser.clusters
    page = open_page(browser, f"{server.url}/#clusters", errors, viewport=PHONE)
    cards = page.locator("#cluster-cards .tile")
    expect(cards).to_have_count(len(clusters))
    assert_loaded(page, "#cluster-cards img")
    assert_no_horizontal_scroll(page)
    page.screenshot(path=tmp_path / "clusters.png", full_page=True)

    page.locator("#cluster-query").fill(str(clusters[0].cluster))
    expect(page).to_have_url(re.compile("query="))
    expect(cards.first).to_contain_text(f"cluster {clusters[0].cluster}")
    cards.first.locator("a").click()
    expect(page.locator("#view-cluster h1")).to_have_text(f"Cluster {clusters[0].cluster}")
    members = page.locator("#members .tile")
    expect(members).to_have_count(clusters[0].size)
    page.reload()
    expect(members).to_have_count(clusters[0].size)
    assert_loaded(page, "#members img")
    page.screenshot(path=tmp_path / "cluster.png", full_page=True)
    members.first.locator("a").click()
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    page.reload()
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    expect(page.locator("#query .label")).not_to_be_empty()
    page.go_back()
    expect(members).to_have_count(clusters[0].size)
    page.go_back()
    expect(page.locator("#cluster-query")).to_have_value(str(clusters[0].cluster))
    assert errors == []


def test_the_keyboard_is_enough(server: LiveServer, browser: Any, errors: list[str], tmp_path: Path) -> None:
    page = open_page(browser, server.url, errors)
    expect(page.locator("#samples a")).to_have_count(6)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab does not reach {selector}")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#view-start h1")).to_be_focused()
    with page.expect_file_chooser():
        tab_to("#choose-image")
        page.keyboard.press("Enter")
    tab_to("#samples a")
    page.screenshot(path=tmp_path / "focus.png")
    page.keyboard.press("Enter")
    expect(page.locator("#view-search h1")).to_be_focused()
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    tab_to("#neighbors button")
    page.keyboard.press("Enter")
    expect(page.locator("#compare img[src^='data:']")).to_have_count(2)
    page.keyboard.press("Enter")
    expect(page.locator("#compare")).to_be_hidden()
    tab_to("#neighbors a[href^='#cluster/']")
    page.keyboard.press("Enter")
    expect(page.locator("#view-cluster h1")).to_be_focused()
    tab_to("#members a")
    page.keyboard.press("Enter")
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    assert errors == []


def test_errors_are_shown(server: LiveServer, browser: Any, tmp_path: Path) -> None:
    page = open_page(browser, server.url, [])
    message = page.locator("#message")
    page.locator("#file-input").set_input_files({"name": "none.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    expect(message).to_be_visible()
    expect(message.locator("button")).to_be_hidden()
    page.locator("#file-input").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"})
    expect(message).to_contain_text("This file is not an image")
    page.screenshot(path=tmp_path / "error.png")
    page.goto(f"{server.url}/#image/{'0' * 64}")
    expect(message).to_contain_text("0000")
    page.goto(f"{server.url}/#upload/7")
    expect(message).to_contain_text("Choose it again")
    page.goto(f"{server.url}/#cluster/999999")
    expect(message).to_contain_text("no cluster 999999")


@pytest.mark.parametrize(
    ("size", "limits"),
    [((1600, 1200), Limits(max_pixels=300_000)), ((1600, 1200), Limits(max_upload_bytes=60_000)), ((400, 300), Limits(max_pixels=120_000))],
    ids=["pixels", "bytes", "small"],
)
def test_an_image_beyond_the_limits_is_shrunk(
    folder: Path,
    browser: Any,
    errors: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    limits: Limits,
) -> None:
    # The camera was turned: the file is wide, and the image is shown upright, with its red half at the top.
    stored = pattern(3, size).convert("RGB")
    stored.paste("red", (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = ORIENTATION_90_CLOCKWISE
    stored.save(tmp_path / "large.jpg", quality=100, exif=exif)
    uploads: list[bytes] = []
    with live_server(str(folder), ServeSettings(limits=limits)) as server:
        to_stored_jpeg = server.service.to_stored_jpeg
        monkeypatch.setattr(server.service, "to_stored_jpeg", lambda image: (uploads.append(image), to_stored_jpeg(image))[1])
        page = open_page(browser, server.url, errors)
        page.locator("#file-input").set_input_files(tmp_path / "large.jpg")
        expect(page.locator("#neighbors .tile")).to_have_count(12)
        page.locator("#neighbors button").first.click()
        expect(page.locator("#compare img[src^='data:image/png']")).to_have_count(2)
    assert errors == []
    assert uploads[0] == uploads[1]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(uploads[0])))
    assert len(uploads[0]) <= limits.max_upload_bytes
    assert upright.width * upright.height <= limits.max_pixels
    assert upright.width / upright.height == pytest.approx(size[1] / size[0], rel=0.01)
    top, bottom = np.asarray(upright.convert("RGB").resize((1, 4), Image.Resampling.BOX))[[0, 3], 0]
    assert top.tolist() == pytest.approx([254, 0, 0], abs=6)
    assert bottom[0] < 200
    is_unchanged = uploads[0] == (tmp_path / "large.jpg").read_bytes()
    assert is_unchanged == (size[0] * size[1] <= limits.max_pixels and (tmp_path / "large.jpg").stat().st_size <= limits.max_upload_bytes)


def test_an_unreadable_file_beyond_the_limits_is_refused(folder: Path, browser: Any) -> None:
    limits = Limits(max_upload_bytes=50_000)
    with live_server(str(folder), ServeSettings(limits=limits)) as server:
        page = open_page(browser, server.url, [])
        page.locator("#file-input").set_input_files({"name": "scan.tif", "mimeType": "image/tiff", "buffer": bytes(60_000)})
        expect(page.locator("#message")).to_contain_text("60,000 bytes")
        expect(page.locator("#message")).to_contain_text("cannot shrink its format")


def test_a_busy_service_is_tried_again(server: LiveServer, browser: Any) -> None:
    page = open_page(browser, f"{server.url}/#clusters", [])
    expect(page.locator("#cluster-cards .tile").first).to_be_visible()
    admission = server.service.batcher.admission
    admission.queue_size += admission.max_queue_size
    try:
        page.locator("#nav-search").click()
        expect(page.locator("#message")).to_contain_text("busy")
    finally:
        admission.queue_size -= admission.max_queue_size
    expect(page.locator("#samples a")).to_have_count(6)
    expect(page.locator("#message")).to_be_hidden()


def test_the_token_is_sent_with_every_request(folder: Path, browser: Any, tmp_path: Path) -> None:
    with live_server(str(folder), token=TOKEN) as server:
        page = browser.new_context(viewport=PHONE).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(server.url)
        expect(page.locator("#token")).to_be_focused()
        page.screenshot(path=tmp_path / "token.png")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_contain_text("The token is not valid")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#token-form")).to_be_hidden()
        assert_loaded(page, "#samples img")
        page.locator("#samples a").first.click()
        expect(page.locator("#neighbors .tile")).to_have_count(12)
        page.reload()
        assert_loaded(page, "#neighbors img")
