"""What is ssh's own: keys, hosts and connections that fail, against a real sshd."""

import dataclasses
import subprocess

import pytest

from mobilekd.errors import DeviceError, MissingToolError
from mobilekd.transports.ssh import Ssh
from tests.device.tools import need


@dataclasses.dataclass(frozen=True)
class Way:
    key: str
    port: int
    known_hosts: str


@pytest.fixture
def way(machine, tmp_path) -> Way:
    known = tmp_path / "known_hosts"
    known.write_text(machine.known_hosts.read_text())
    return Way(str(machine.key), machine.ssh_port, str(known))


def open_ssh(way: Way, state) -> Ssh:
    given = {"UserKnownHostsFile": way.known_hosts, "GlobalKnownHostsFile": "none", "IdentitiesOnly": "yes"}
    words = [word for name, value in given.items() for word in ("-o", f"{name}={value}")]
    options = ("-F", "none", "-i", way.key, "-p", str(way.port), *words)
    return Ssh("root@127.0.0.1", state=state, options=options, connect_timeout_s=20).__enter__()


def new_key(path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return str(path)


def test_an_unknown_host_key_is_told(way, tmp_path):
    (tmp_path / "none").touch()
    with pytest.raises(DeviceError, match="has a host key that you have not accepted"):
        open_ssh(dataclasses.replace(way, known_hosts=str(tmp_path / "none")), tmp_path)


def test_a_changed_host_key_is_told(way, tmp_path):
    other = new_key(tmp_path / "other")
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "wrong").write_text(f"[127.0.0.1]:{way.port} {public}\n")
    with pytest.raises(DeviceError, match="has another host key than before"):
        open_ssh(dataclasses.replace(way, known_hosts=str(tmp_path / "wrong")), tmp_path)
    assert other


def test_a_key_that_is_not_accepted_is_told(way, tmp_path):
    with pytest.raises(DeviceError, match="accepts none of your keys"):
        open_ssh(dataclasses.replace(way, key=new_key(tmp_path / "mine")), tmp_path)


def test_a_refused_port_is_told(tmp_path):
    need("ssh")
    with pytest.raises(DeviceError, match="refuses the connection"):
        open_ssh(Way("/dev/null", 9, "/dev/null"), tmp_path)


def test_a_host_that_looks_like_an_option_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="is no host"):
        Ssh("-oProxyCommand=id", state=tmp_path)


def test_without_ssh_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="ssh is not on PATH"):
        Ssh("board", state=tmp_path).__enter__()
