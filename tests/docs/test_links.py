import importlib.util
import re
from types import SimpleNamespace

import pytest

from .commands import ROOT

_SPEC = importlib.util.spec_from_file_location("docs_links", ROOT / "docs/_hooks/links.py")
assert _SPEC
assert _SPEC.loader
LINKS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(LINKS)


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("devices.md", "see [devices/](../devices).", "see `devices`."),
        ("devices.md", "the [source](../mobilekd/a.c)", "the source (`mobilekd/a.c`)"),
        ("results/spine.md", "see [data](../data.md)", "see [data](../data.md)"),
        ("results/spine.md", "the [code](../../mobilekd/x.py)", "the code (`mobilekd/x.py`)"),
        (
            "index.md",
            "![picture](images/a.png) and [page](start.md#x)",
            "![picture](images/a.png) and [page](start.md#x)",
        ),
    ],
)
def test_a_link_that_leaves_the_docs_is_a_name_on_the_site(page: str, before: str, after: str) -> None:
    assert LINKS.on_page_markdown(before, page=SimpleNamespace(file=SimpleNamespace(src_uri=page))) == after


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_a_link_of_the_front_pages_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []
