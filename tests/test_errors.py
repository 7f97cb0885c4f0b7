import pytest

from mobilekd import errors
from mobilekd.errors import MobilekdError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("MissingToolError", 3),
        ("StageError", 4),
        ("DeviceError", 5),
        ("OverBudgetError", 6),
        ("VerificationError", 7),
    ],
)
def test_every_failure_has_the_documented_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code
    assert f"{name}" in (errors.__doc__ or "")


def test_no_two_failures_share_an_exit_code() -> None:
    codes = [kind.exit_code for kind in MobilekdError.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_a_failure_carries_message_and_hint() -> None:
    failure = errors.ConfigError("what", hint="next")
    assert (str(failure), failure.message, failure.hint) == ("what", "what", "next")
