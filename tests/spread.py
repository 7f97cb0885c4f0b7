"""Which tests share a process under `pytest -n`.

pytest-xdist 3.8 writes its groups into node ids, which pytest 9.2 no longer reads: hence a scheduler.
"""

from xdist.scheduler import LoadScopeScheduling

_DEVICE_FOLDERS = ("tests/device/", "tests/benchmarking/", "tests/transports/")
_DEVICE_FILES = ("tests/test_cli_devices.py", "tests/test_cli_bench.py", "tests/test_devices.py")


class Spread(LoadScopeScheduling):
    """Keep a file on one process, so that its fixtures are made once, and all that uses devices on another.

    Those share a virtual machine, an adb server and the lock of this host.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "devices" if file.startswith(_DEVICE_FOLDERS) or file in _DEVICE_FILES else file
