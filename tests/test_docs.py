"""The site that `make docs` builds, here without running the tutorials."""

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import ehrmeta
from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.ranges import declared_ranges

ROOT = Path(__file__).parents[1]
GENERATED = shutil.ignore_patterns("_build", "generated", "tutorials")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a warning, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=GENERATED)
    shutil.copytree(ROOT / "tutorials", folder / "tutorials")
    for page in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / page, folder)
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run(
        [*build, "docs", "html"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        (self.links if tag == "a" else self.loaded).update(
            values[name] for name in ("href", "src") if name in values
        )


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def rooms() -> list[str]:
    """The public packages; those of the command line have pages in the guide instead."""
    packages = [entry.name for entry in pkgutil.iter_modules(ehrmeta.__path__) if entry.ispkg]
    return [f"ehrmeta.{name}" for name in ["errors", *packages] if name != "cli"]


def test_every_public_name_has_a_page(site: Path, pages: dict[Path, Page]) -> None:
    listed = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    names = {line.split(" ")[0] for line in listed.splitlines() if " py:" in line}
    public = {f"ehrmeta.{name}" for name in ehrmeta.__all__}
    for room in rooms():
        others = set(importlib.import_module(room).__all__) - set(ehrmeta.__all__)
        public |= {room} | {f"{room}.{name}" for name in others}
    assert public - names == set()
    missing = [name for name in public if not (site / f"api/generated/{name}.html").exists()]
    assert missing == []


def test_no_link_leads_nowhere(pages: dict[Path, Page]) -> None:
    nowhere = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].anchors
            ):
                nowhere.append((path.name, link))
    assert nowhere == []


def test_no_page_needs_the_network(site: Path, pages: dict[Path, Page]) -> None:
    outside = {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert len(styles) > 1
    assert outside == set()
    assert [text for text in styles if re.search(r"(@import|url\()\W*(https?:)?//", text)] == []


def test_the_guide_shows_the_ranges_that_are_declared(site: Path) -> None:
    page = (site / "tuning.html").read_text(encoding="utf-8")
    for algorithm in filter(declared_ranges, ALGORITHMS.values()):
        assert f">{algorithm.__name__}</span>" in page


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    page = (site / "api/generated/ehrmeta.MAML.html").read_text(encoding="utf-8")
    assert "<munder>" in page
    assert "\\theta" not in page
