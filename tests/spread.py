"""Which tests share a process under `pytest -n`.

pytest-xdist 3.8 writes its groups into node ids, which pytest 9.2 no longer reads: hence a scheduler.
"""

from xdist.scheduler import LoadScopeScheduling

_DEVICE_FOLDERS = ("tests/device/", "tests/benchmarking/", "tests/transports/")
_DEVICE_FILES = ("tests/test_cli_devices.py", "tests/test_cli_bench.py", "tests/test_devices.py")
# They measure on this host with the user's own state folder, whose lock one process holds at a time.
_HOST = ("tests/docs/", "tests/test_reproduce_real.py")


LONG_FILES = (
    "tests/transports/",
    "tests/benchmarking/",
    "tests/device/",
    "tests/test_build_real.py",
    "tests/docs/test_commands.py",
    "tests/test_cifar.py",
    "tests/test_reproduce_real.py",
    "tests/docs/test_browser.py",
    "tests/docs/test_notebook.py",
    "tests/test_fuzz.py",
    "tests/test_sweep_real.py",
    "tests/release/test_hostile.py",
    "tests/backends/",
    "tests/store/",
    "tests/training/test_processes.py",
    "tests/test_torchrun.py",
)
"""What takes longest, from the longest: begun first, so that no process waits for another at the end."""


def rank(nodeid: str) -> int:
    """Return the place of a test's file among the long ones; behind them all for the others."""
    return next((at for at, start in enumerate(LONG_FILES) if nodeid.startswith(start)), len(LONG_FILES))


class Spread(LoadScopeScheduling):
    """Keep a file on one process, so that its fixtures are made once, and all that uses devices on another.

    Those share a virtual machine, an adb server and the lock of this host.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith(_DEVICE_FOLDERS) or file in _DEVICE_FILES:
            return "devices"
        return "host" if file.startswith(_HOST) else file
