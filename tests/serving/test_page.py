"""The page in a real browser: ask with an image, look at the answer, go on from it, come back, filter, compare, walk the clusters."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageEnhance

from tests.serving.running import Running, running

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
expect = playwright.expect
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")]

PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1280, "height": 900}
TOKEN = "correct-horse-battery"
LOOKS = pytest.mark.parametrize(
    ("name", "options"), [("phone", {"viewport": PHONE, "has_touch": True}), ("dark", {"color_scheme": "dark"})]
)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with running(str(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as browsers:
        started = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def errors() -> list[str]:
    """What the browser's console says is wrong."""
    return []


def opened(browser: Any, address: str, errors: list[str], **options: Any) -> Any:
    """Return a tab of its own at an address."""
    page = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options}).new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    return page


def a_test_image(server: Running, synthetic_folder: Path) -> tuple[Path, str]:
    """Return the file and the label of an image of the test split."""
    rows = server.service.current().searcher.index.rows
    row = rows[rows["split"] == "test"].iloc[0]
    return synthetic_folder / row["path"], row["label"]


def taken_again(file: Path, folder: Path) -> Path:
    """Return an image of the same thing that is in no index: nearer, brighter, and another file."""
    with Image.open(file) as image:
        width, height = image.size
        nearer = image.convert("RGB").crop((width // 20, height // 20, width - width // 20, height - height // 20))
    ImageEnhance.Brightness(nearer).enhance(1.1).save(folder / "again.jpg", quality=90)
    return folder / "again.jpg"


def assert_fits(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def assert_drawn(page: Any, images: str) -> None:
    """Wait until the first image is there, and has pixels."""
    expect(page.locator(images).first).to_have_attribute("src", re.compile("^(blob:|data:image/png)"))
    expect(page.locator(images).first).to_have_js_property("complete", True)
    assert page.locator(images).first.evaluate("image => image.naturalWidth") > 0


@LOOKS
def test_a_person_searches_goes_on_comes_back_and_filters(
    server: Running, browser: Any, synthetic_folder: Path, errors: list[str], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    asked, label = a_test_image(server, synthetic_folder)
    page = opened(browser, server.url, errors, **options)
    neighbors = page.locator("#neighbors .tile")
    assert_drawn(page, "#samples img")
    assert_fits(page)
    page.screenshot(path=tmp_path / f"start-{name}.png")

    page.locator("#file").set_input_files(taken_again(asked, tmp_path))
    expect(neighbors).to_have_count(12)
    expect(neighbors.first.locator("img")).to_have_attribute("alt", label)
    expect(neighbors.first).not_to_contain_text("0.000")
    assert_drawn(page, "#neighbors img")
    assert_drawn(page, "#query img")
    assert_fits(page)
    page.screenshot(path=tmp_path / f"found-{name}.png", full_page=True)

    neighbors.nth(1).locator("a").first.click()
    expect(page).to_have_url(re.compile("#like/[0-9a-f]{64}$"))
    expect(page.locator("#trail a")).to_have_count(2)
    expect(page.locator("#view-result .facts")).to_contain_text("12 are")
    page.go_back()
    expect(page).to_have_url(re.compile("#own/1$"))
    expect(neighbors.first.locator("img")).to_have_attribute("alt", label)
    expect(page.locator("#trail a")).to_have_count(0)

    other = next(one for one in server.service.current().searcher.index.rows["label"] if one != label)
    page.locator("#under").fill(other)
    page.locator("#under").press("Enter")
    expect(neighbors.first.locator("img")).to_have_attribute("alt", other)
    expect(neighbors).to_have_count(8)
    page.locator("#under").fill("no such thing")
    page.locator("#under").press("Enter")
    expect(page.locator("#under-hint")).to_contain_text("No classes")
    page.locator("#under").fill("")
    expect(neighbors).to_have_count(12)
    page.locator("#k").select_option("24")
    expect(neighbors).to_have_count(24)
    assert_fits(page)
    assert errors == []


@LOOKS
def test_two_are_compared_and_the_model_is_described(
    server: Running, browser: Any, errors: list[str], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    page = opened(browser, f"{server.url}/#like/{server.service.current().searcher.index.rows['id'].iloc[0]}", errors, **options)
    why = page.locator("#neighbors .tile").nth(1).get_by_role("button")
    why.click()
    dialog = page.locator("#compare")
    expect(dialog.locator("img[src^='data:image/png']")).to_have_count(2)
    expect(dialog.locator("img")).to_have_count(4)
    expect(dialog.locator(".facts")).to_contain_text("Distance")
    assert_drawn(page, "#compare figure img")
    page.screenshot(path=tmp_path / f"compared-{name}.png")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(why).to_be_focused()

    page.locator("#to-model").click()
    expect(page.locator("#metrics")).to_contain_text("The nearest image shows the same class")
    expect(page.locator("#metrics")).to_contain_text("60.0 %")
    expect(page.locator("#about")).to_contain_text("16 numbers")
    page.screenshot(path=tmp_path / f"model-{name}.png")
    page.keyboard.press("Escape")
    assert_fits(page)
    assert errors == []


def test_the_clusters_can_be_walked_and_their_addresses_shared(
    server: Running, browser: Any, catalogue: Any, errors: list[str], tmp_path: Path
) -> None:
    clusters = server.service.current().browser.clusters
    page = opened(browser, f"{server.url}/#clusters", errors, viewport=PHONE)
    cards = page.locator("#cards .tile")
    expect(cards).to_have_count(len(clusters))
    assert_drawn(page, "#cards img")
    assert_fits(page)
    page.screenshot(path=tmp_path / "clusters.png", full_page=True)

    page.locator("#find").fill(str(clusters[0].cluster))
    expect(page).to_have_url(re.compile("find="))
    expect(cards.first).to_contain_text(f"cluster {clusters[0].cluster}")
    cards.first.locator("a").click()
    expect(page.locator("#view-cluster h1")).to_have_text(f"Cluster {clusters[0].cluster}")
    members = page.locator("#members .tile")
    expect(members).to_have_count(clusters[0].size)
    page.reload()
    expect(members).to_have_count(clusters[0].size)
    assert_drawn(page, "#members img")
    page.screenshot(path=tmp_path / "cluster.png", full_page=True)
    members.first.locator("a").click()
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    page.reload()
    expect(page.locator("#neighbors .tile")).to_have_count(12)
    expect(page.locator("#query .label")).not_to_be_empty()
    page.go_back()
    expect(members).to_have_count(clusters[0].size)
    page.go_back()
    expect(page.locator("#find")).to_have_value(str(clusters[0].cluster))
    assert errors == []


def test_the_keyboard_alone_will_do(server: Running, browser: Any, errors: list[str], tmp_path: Path) -> None:
    page = opened(browser, server.url, errors)
    expect(page.locator("#samples a")).to_have_count(6)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab does not come to {selector}")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#view-start h1")).to_be_focused()
    with page.expect_file_chooser():
        tab_to("#drop")
        page.keyboard.press("Enter")
    tab_to("#samples a")
    page.screenshot(path=tmp_path / "focus.png")
    page.keyboard.press("Enter")
    expect(page.locator("#view-result h1")).to_be_focused()
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


def test_what_goes_wrong_is_said(server: Running, browser: Any, tmp_path: Path) -> None:
    page = opened(browser, server.url, [])
    message = page.locator("#message")
    page.locator("#file").set_input_files({"name": "none.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    expect(message).to_be_visible()
    expect(message.locator("button")).to_be_hidden()
    page.locator("#file").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"})
    expect(message).to_contain_text("That is no image")
    page.screenshot(path=tmp_path / "wrong.png")
    page.goto(f"{server.url}/#like/{'0' * 64}")
    expect(message).to_contain_text("0000")
    page.goto(f"{server.url}/#own/7")
    expect(message).to_contain_text("choose it again")
    page.goto(f"{server.url}/#cluster/999999")
    expect(message).to_contain_text("no cluster 999999")


def test_a_busy_service_is_asked_again_in_a_while(server: Running, browser: Any) -> None:
    page = opened(browser, f"{server.url}/#clusters", [])
    expect(page.locator("#cards .tile").first).to_be_visible()
    batcher = server.service.batcher
    full = batcher.settings.waiting
    batcher.waiting += full
    try:
        page.locator("#to-search").click()
        expect(page.locator("#message")).to_contain_text("busy")
    finally:
        batcher.waiting -= full
    expect(page.locator("#samples a")).to_have_count(6)
    expect(page.locator("#message")).to_be_hidden()


def test_a_service_that_wants_a_token_is_shown_it_with_every_request(folder: Path, browser: Any, tmp_path: Path) -> None:
    with running(str(folder), token=TOKEN) as strict:
        page = browser.new_context(viewport=PHONE).new_page()
        page.set_default_timeout(20_000)
        page.goto(strict.url)
        expect(page.locator("#token")).to_be_focused()
        page.screenshot(path=tmp_path / "token.png")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_contain_text("does not take that token")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#token-form")).to_be_hidden()
        assert_drawn(page, "#samples img")
        page.locator("#samples a").first.click()
        expect(page.locator("#neighbors .tile")).to_have_count(12)
        page.reload()
        assert_drawn(page, "#neighbors img")
