"""What a Linux or Android device says of itself, asked in one script."""

import re
from collections.abc import Mapping, Sequence

from mobilekd.transport import DeviceFacts

_QUESTIONS: Mapping[str, str] = {
    "machine": "uname -m",
    "kernel": "uname -sr",
    "maker": "getprop ro.product.manufacturer",
    "model": "getprop ro.product.model",
    "android": "getprop ro.build.version.release",
    "build": "getprop ro.build.id",
    "board": "tr -d '\\0' </proc/device-tree/model",
    "memory": "grep MemTotal /proc/meminfo",
    "cpuinfo": "cat /proc/cpuinfo",
}
_MARK = "mobilekd-fact"
SCRIPT = "\n".join(
    f"echo; echo {_MARK} {name}; {{ {command}; }} </dev/null 2>/dev/null" for name, command in _QUESTIONS.items()
)
"""Prints one part for each question; a question that this device can't answer stays empty."""


def read_facts(text: str, default_name: str) -> DeviceFacts:
    """Return the facts in the answer to SCRIPT.

    Args:
        text: What the script printed.
        default_name: For a device that tells no name of its own.
    """
    parts = re.split(rf"^{_MARK} (\w+)$", text.replace("\r", ""), flags=re.MULTILINE)
    answers = {name: answer.strip() for name, answer in zip(parts[1::2], parts[2::2], strict=True)}
    cpuinfo = answers.get("cpuinfo", "")
    features = re.search(r"^(?:Features|flags)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"(\d+) kB", answers.get("memory", ""))
    phone = f"{answers.get('maker', '')} {answers.get('model', '')}".strip()
    android = f"Android {answers['android']} {answers.get('build', '')}".strip() if answers.get("android") else ""
    return DeviceFacts(
        name=phone or answers.get("board") or default_name,
        machine=answers.get("machine", ""),
        features=tuple(features[1].split()) if features else (),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        system=", ".join(part for part in (android, answers.get("kernel", "")) if part),
    )


def read_free_bytes(lines: Sequence[str]) -> int | None:
    """Return the free bytes that `df` told in its last line, in KiB; None where it told none.

    Example:
        >>> read_free_bytes(["/dev/dm-5 112000 40000 72000 36% /data"])
        73728000
    """
    numbers = [int(word) for word in (lines[-1].split() if lines else ()) if word.isdigit()]
    return numbers[2] * 1024 if len(numbers) >= 3 else None
