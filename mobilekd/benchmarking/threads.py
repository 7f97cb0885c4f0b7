"""More threads than cores wait for each other, so what they are timed at says nothing."""

from mobilekd.errors import ConfigError


def check_threads(threads: int, cores: int, whose: str) -> None:
    """Accept so many threads on a device; 0 cores are not known.

    Raises:
        ConfigError: They are more than its cores, so that they would wait for each other.
    """
    if cores and threads > cores:
        raise ConfigError(
            f"benchmark.threads is {threads}, and {whose} has {told_cores(cores)}",
            hint=f"--set profile.benchmark.threads={cores}",
            code="MKD-234",
        )


def told_cores(cores: int) -> str:
    """Return a number of cores in words.

    Example:
        >>> told_cores(1)
        '1 core'
    """
    return f"{cores} core{'s' * (cores != 1)}"
