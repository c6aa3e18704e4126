"""The page in a real browser: ask with a photograph, look at the answer, go on from it, filter, compare."""

import shutil
from pathlib import Path

import pytest

from tests.serving.running import Running, running

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
def test_a_person_searches_goes_on_filters_and_compares(folder: Path, rendered_folder: Path, tmp_path: Path) -> None:
    with running(str(folder)) as server:
        _look(server, rendered_folder, tmp_path)


def _look(server: Running, rendered_folder: Path, tmp_path: Path) -> None:
    rows = server.service.served.searcher.index.rows
    asked, label = rendered_folder / rows["path"].iloc[0], rows["label"].iloc[0]
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#asked figure")
        page.set_input_files("#file", asked)
        page.wait_for_selector("#found figure")
        assert f"{label} · 0.000" in page.inner_text("#found figcaption >> nth=0")
        page.screenshot(path=tmp_path / "found.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("#found figcaption button >> nth=1")
        page.wait_for_selector("dialog[open] img >> nth=1")
        page.screenshot(path=tmp_path / "compared.png")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]", state="detached")
        other = next(one for one in rows["label"] if one != label)
        page.select_option("#under", other)
        playwright.expect(page.locator("#found figcaption").first).to_contain_text(other)
        page.click("#found figure > button >> nth=1")
        playwright.expect(page.locator("#found-title")).to_contain_text(other)
        browser.close()
    assert errors == []
