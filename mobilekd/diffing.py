"""The diff of two bundles as a command does it: the page with pictures, and when it ends in an error."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.cache import Cache
from mobilekd.errors import ConfigError, VerificationError
from mobilekd.held_images import find_test_split

if TYPE_CHECKING:
    from mobilekd.release.diff import Diff
    from mobilekd.release.diff_page import Pixels


def write_page(diff: "Diff", cache: Cache, page: Path) -> None:
    """Write the page; images that flipped are shown where the cache has the test split that the bundles name.

    Raises:
        ConfigError: The page can't be written.
    """
    from mobilekd.release.diff_page import diff_page

    images = _images(diff, cache)
    why = "The cache of this machine has no data set with these test images, so there are no pictures."
    text = diff_page(diff, images, "" if images is not None else why)
    fresh = page.with_name(f".{page.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(page)
    except OSError as cause:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"{page} can't be written: {cause.strerror}", hint="choose another --html FILE") from cause


def check(diff: "Diff", *, strict: bool) -> None:
    """Refuse a release whose labels moved; when strict, one that an app has to follow.

    Raises:
        VerificationError: Names the first such change.
    """
    found = [*diff.of_weight("error"), *(diff.of_weight("breaking") if strict else ())]
    if found:
        one, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        hint = "keep the order of the classes: sort the folders, or give the labels of the last release"
        if one.weight != "error":
            hint = "release it with the app that follows it, or leave --strict out"
        raise VerificationError(f"{one.subject}: {one.old}, now {one.new}: {one.says}{more}", hint=hint, code="MKD-710")


def _images(diff: "Diff", cache: Cache) -> "Pixels | None":
    import numpy as np

    folder = find_test_split(diff.dataset, cache) if any(one.flips for one in diff.answers) else None
    if folder is None:
        return None
    images: Pixels = np.load(folder / "test_images.npy", mmap_mode="r", allow_pickle=False)
    return images
