"""The browser, once for all tests. Without one they are skipped; STEPDOWN_REQUIRE=chromium makes that a failure."""

import os

import pytest

from tests.report.browser import Browser, find_chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium = find_chromium()
    if chromium is None:
        reason = "no chromium on the path: apt-get install chromium"
        if "chromium" in os.environ.get("STEPDOWN_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    browser = Browser(chromium, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def show(browser):
    """Open a file with the looks of :class:`Page`; pages are closed at the end."""
    pages = []

    def open_file(path, **looks):
        pages.append(browser.open(path.as_uri(), **looks))
        return pages[-1]

    yield open_file
    for page in pages:
        page.close()
