"""What the runner asks of a C library is what Android's has, so that the NDK links it as it stands.

Compiled here against glibc, where some functions have another name in the program than in C.
"""

import re
import subprocess

from mobilekd.device import building
from tests.device.models import Silent
from tests.device.tools import need

# Each is in bionic's libc.map.txt or libdl.map.txt for arm64, at API level 24 or below (stderr and stdout: 23).
ANDROID = """
    __stack_chk_fail _exit abort access dlerror dlopen dlsym dup dup2 fclose fdopen fflush fgets fopen fprintf fputc
    free fscanf fstat fwrite getenv malloc memcpy memset open posix_memalign pread realloc rename sched_setaffinity
    setenv snprintf sscanf stderr stdout strcmp strdup strerror strncmp strtol strtoull syscall sysconf uname unlink
    vsnprintf
"""
# bionic's own names of these are __errno and __libc_init; no source says either.
GLUE = {"__errno_location", "__libc_start_main"}


def test_runner_asks_of_the_c_library_only_what_android_7_has(state):
    need("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-nm")
    program = building.runner("aarch64", state, Silent())
    argv = ["aarch64-linux-gnu-nm", "-D", "--undefined-only", "--without-symbol-versions", str(program)]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    asked = set(re.findall(r" U (?:__isoc\d+_|__(?=\w+_chk$))?(\w+?)(?:(?<!stack)_chk)?$", listed, re.MULTILINE))

    assert asked - GLUE <= set(ANDROID.split())
    assert "sched_setaffinity" in asked
