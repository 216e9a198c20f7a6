"""Takes the README's pictures: a live search, its report and the dashboard, of a small study of the embedded digits.

    python scripts/pictures.py [FOLDER]

Needs what `scripts/test` installs, and a Chrome or Chromium. The study itself is thrown away.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from queue import Queue

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from nas.dashboard import serve
from nas.display.terminal import TerminalDisplay
from nas.paths import StudyPaths
from nas.report.page import write_page
from nas.report.record import read_record
from nas.specs import SearchSpec
from nas.study.run import run_search
from nas.study.source import Progress
from nas.study.trials import TrialRecord

TRIALS, EPOCHS = 30, 12
LOOKED_AT = 20
"""Trained networks after which the live panel is looked at."""
COLUMNS = 126
LINES = 10
"""Of the terminal, above the panel."""
PAGE = {"width": 1280, "height": 860}
CHROMES = ("chromium", "chromium-browser", "google-chrome")


class _Watched(TerminalDisplay):
    """Looks at the terminal once, in the middle of the search."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), force_terminal=True, width=COLUMNS, highlight=False))
        self.lines: list[str] = []
        self._ended = set[int]()
        self.svg: str | None = None

    def say(self, text: str) -> None:
        self.lines.append(text)

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        self._ended.add(row.number)
        super().ended(row, progress)

    def update(self, progress: Progress) -> None:
        super().update(progress)
        at_work = list(progress.running.values())
        busy = len(at_work) == len(progress.devices) and all(one.last and int(one.job.key) not in self._ended for one in at_work)
        if self.svg is None and progress.trained >= LOOKED_AT and busy:
            seen = Console(record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=COLUMNS)
            for line in self.lines[-LINES:]:
                seen.print(Text(line), soft_wrap=True)
            seen.print(self._panel())
            self.svg = seen.export_svg(title=f"nas search --space digits --dataset digits --trials {TRIALS}", theme=MONOKAI)


def search_and_look() -> tuple[StudyPaths, str]:
    request = SearchSpec(
        study="digits",
        space="digits",
        dataset="digits",
        trials=TRIALS,
        epochs=EPOCHS,
        finalists=0,
        device="cpu",
        workers=2,
        seed=0,
    )
    with _Watched() as display:
        result = run_search(request, display)
    if display.svg is None:
        sys.exit("the search was over before all its workers were at work at once; run this again")
    return result.plan.paths, display.svg


def take(page: Page, output: Path, height: int | None = None) -> None:
    """The window, or so many pixels of the page from its top, with at most 256 colours."""
    clip = None if height is None else {"x": 0, "y": 0, "width": PAGE["width"], "height": height}
    image = Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=height is not None))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"{output.name}: {image.width}×{image.height}, {output.stat().st_size / 1000:.0f} kB")


def picture_terminal(browser: Browser, svg: str, output: Path) -> None:
    page = browser.new_page(viewport=PAGE)
    page.set_content(f'<body style="margin: 0">{svg}</body>')
    image = page.locator("svg").first
    output.write_bytes(image.screenshot())
    Image.open(output).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chrome = next((path for name in CHROMES if (path := shutil.which(name))), None)
    if chrome is None:
        sys.exit(f"none of {', '.join(CHROMES)} is installed")
    with tempfile.TemporaryDirectory(prefix="nas-pictures-") as studies, sync_playwright() as playwright:
        os.environ["NAS_STUDIES"] = studies
        paths, svg = search_and_look()
        options = ["--disable-gpu"] + ["--no-sandbox"] * (os.geteuid() == 0)
        browser = playwright.chromium.launch(executable_path=chrome, args=options)

        picture_terminal(browser, svg, folder / "search.png")

        page = browser.new_page(viewport=PAGE)
        page.goto(write_page(read_record(paths), None).as_uri())
        page.wait_for_timeout(1000)
        take(page, folder / "report.png", 1700)

        address: Queue[str] = Queue()
        threading.Thread(target=serve, args=(paths, "127.0.0.1", 0, address.put), daemon=True).start()
        page.goto(address.get(timeout=60))
        page.wait_for_selector("text=Best Trial", timeout=120_000)
        page.wait_for_selector("text=Accuracy against parameters", timeout=120_000)
        page.wait_for_timeout(3000)  # its charts draw themselves
        take(page, folder / "dashboard.png")
        browser.close()


if __name__ == "__main__":
    main()
