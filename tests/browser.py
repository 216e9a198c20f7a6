"""A headless Chromium for tests that look at pages. Skipped where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

WINDOW = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 700}
SECONDS = 120  # for a page to load or to change, on a machine whose cores other tests use


@dataclass
class Heard:
    """What a page did beside showing itself."""

    errors: list[str] = field(default_factory=list)
    """Of its scripts, and what it wrote to the console as one."""
    requests: list[str] = field(default_factory=list)
    """Addresses outside the file and itself."""


def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium")
    return found


@contextmanager
def opened(address: str, viewport: dict[str, int] | None = None, colours: str = "light") -> Iterator[tuple]:
    """The page (playwright's), and what was heard of it."""
    api = pytest.importorskip("playwright.sync_api")
    options = ["--no-sandbox", "--disable-gpu"] if os.geteuid() == 0 else ["--disable-gpu"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        try:
            page = browser.new_page(viewport=viewport or WINDOW, color_scheme=colours)
            page.set_default_timeout(SECONDS * 1000)
            heard = Heard()
            page.on("pageerror", lambda error: heard.errors.append(str(error)))
            page.on("console", lambda said: heard.errors.append(said.text) if said.type == "error" else None)
            page.on("request", lambda asked: heard.requests.append(asked.url) if asked.url.startswith("http") else None)
            page.goto(address, wait_until="load")
            yield page, heard
        finally:
            browser.close()
