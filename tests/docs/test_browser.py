"""The built site and the reports of a bundle, in Chromium, at the width of a desk and of a phone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.tools import need
from tests.release.workshop import Workshop

from .browsing import DESKTOP, LIMIT_MS, PHONE, Seen, Visitor, chromium, served
from .commands import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
PAGES = sorted(
    page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in (ROOT / "docs").rglob("*.md")
)
SIZES = [pytest.param(DESKTOP, id="desk"), pytest.param(PHONE, id="phone")]


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    need("chromium")
    with chromium() as browser:
        yield Visitor(browser)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning of mkdocs is an error."""
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


def check(seen: Seen) -> None:
    assert seen.faults == []
    assert (seen.overflow, seen.wide) == (0, [])
    assert [source for source, width in seen.images if not width] == []


def tables_of(page: str) -> int:
    """Return how many tables the markdown of a page has, outside of code."""
    text = (ROOT / "docs" / page).with_suffix(".md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return len(re.findall(r"^\|[ :|-]+\|$", text, re.MULTILINE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_site_is_whole(page: str, size: tuple[int, int], address: str, visitor: Visitor) -> None:
    seen = visitor.look(f"{address}/{page}", size)
    check(seen)
    assert seen.tables == tables_of(page)


@pytest.fixture(params=["http", "file"])
def start_page(request: pytest.FixtureRequest, site: Path, address: str) -> str:
    return {"http": f"{address}/index.html", "file": f"{site.as_uri()}/index.html"}[request.param]


def test_the_search_finds_a_page(start_page: str, visitor: Visitor) -> None:
    with visitor.browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(start_page, timeout=LIMIT_MS)
        page.locator("input.md-search__input").click()
        page.keyboard.type("attention_transfer")
        found = page.locator(".md-search-result__link").first
        found.wait_for(timeout=LIMIT_MS)
        assert ".html" in found.get_attribute("href")


PLACES = ["host", "device", "emulator"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of PLACE/out/bundle for each place that a report is measured on."""
    root = tmp_path_factory.mktemp("reports")
    for place in PLACES:
        Workshop(root / place, place=place, drifting="tflite-int8").bundle()
    return root


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["report.html", "measurements/report.html"])
def test_a_report_is_whole(name: str, place: str, size: tuple[int, int], reports: Path, visitor: Visitor) -> None:
    page = reports / place / "out/bundle" / name
    seen = visitor.look(page.as_uri(), size)
    check(seen)
    assert seen.tables == page.read_text().count("<table")
    assert seen.plots
    assert [plot for plot in seen.plots if min(plot) <= 0] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<img src="gone.png">', "failed: "),
        ("<script>nothing.at.all</script>", "nothing is not defined"),
        ('<link rel="stylesheet" href="http://fonts.invalid/x.css">', "left the host: http://fonts.invalid/x.css"),
        ('<p style="width: 2000px">wide</p>', "P  wide"),
    ],
)
def test_a_page_with_a_fault_is_found(body: str, said: str, tmp_path: Path, visitor: Visitor) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><title>x</title>{body}")
    seen = visitor.look((tmp_path / "page.html").as_uri(), PHONE)
    assert said in "\n".join((*seen.faults, *seen.wide))
    with pytest.raises(AssertionError):
        check(seen)
