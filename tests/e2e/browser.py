"""The admin as its user sees it: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.servers import Missing, binary

# As root Chromium needs --no-sandbox; the rest keeps it from talking to anybody but the platform.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


# Ours to ask: a chart is drawn over several frames, a page is laid out anew when its size changes.
_INK = """([name, least]) => {
  const canvas = document.querySelector(`[data-chart=${name}] canvas`);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((value, at) => at % 4 === 3 && value > 0).length > least;
}"""
_FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


def is_drawn(page: Page, chart: str) -> None:
    """Waits until more than an axis can be seen of it."""
    page.wait_for_function(_INK, arg=[chart, 500])


def fits(page: Page) -> None:
    """Waits until nothing hangs out to the right."""
    page.wait_for_function(_FITS)


def listened_to(page: Page, problems: list[str]) -> None:
    """Whatever the browser complains of, from now on."""
    page.on("console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "requestfailed",
        # Whoever leaves a page ends what it still asks for.
        lambda asked: (
            None if "ERR_ABORTED" in asked.failure else problems.append(f"{asked.url}: {asked.failure}")
        ),
    )


@contextmanager
def page(*, dark: bool = False, scripts: bool = True) -> Iterator[Page]:
    try:
        chromium = binary("chromium", "chromium-browser", "google-chrome")
    except Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and CI is set")
        pytest.skip(f"{missing} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            context = browser.new_context(
                color_scheme="dark" if dark else "light",
                viewport={"width": 1400, "height": 900},
                java_script_enabled=scripts,
            )
            yield context.new_page()
        finally:
            browser.close()
