"""What a page in a browser can't choose."""

import os

from mobilekd.benchmarking.threads import check_threads
from mobilekd.errors import ConfigError
from mobilekd.profile import Profile


def check_choices(profile: Profile) -> None:
    """Accept a profile that asks for nothing that no browser of this host gives to a page.

    Raises:
        ConfigError: It does; the keys are named.
    """
    has_not = {"benchmark.cores": profile.benchmark.cores, "device.runner": profile.device.runner != "auto"}
    if odd := [key for key, is_set in has_not.items() if is_set]:
        raise ConfigError(
            f"profile {profile.name} sets {' and '.join(odd)}, and a page can't choose that",
            hint=f"leave {' and '.join(odd)} out; benchmark.threads counts in a browser, too",
            code="MKD-233",
        )
    # The browser may have fewer: that is known when its page is open, and a build wants to know before it trains.
    check_threads(profile.benchmark.threads, os.cpu_count() or 1, "this host")
