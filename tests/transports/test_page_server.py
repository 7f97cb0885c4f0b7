"""The server of a page, asked by hand: what it gives to whom, and what it takes."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilekd.transport import Completed
from mobilekd.transports._folder import Folder
from mobilekd.transports._page_server import PageServer

HELLO = {
    "user_agent": "test",
    "hardware_concurrency": 2,
    "cross_origin_isolated": True,
    "wasm_simd": True,
    "wasm_threads": True,
    "clock_us": 5.0,
}
DONE = {"id": 1, "returncode": 0, "stdout": "{}", "stderr": ""}
SOON_S = 60.0
Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    held = Folder(tmp_path / "device")
    (held.work / "model").write_bytes(b"bytes")
    (tmp_path / "secret").write_text("not for the page")
    yield held
    held.close()


@pytest.fixture
def server(folder: Folder) -> Iterator[PageServer]:
    with PageServer(folder.path) as serving:
        yield serving


@pytest.fixture
def ask(server: PageServer) -> Ask:
    """Ask for a name below the server's own address; return status and content."""

    def send(method: str, name: str, body: bytes = b"", *, start: str = "", host: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(server.host, timeout=SOON_S)
        path = (start or server.url.removeprefix(f"http://{server.host}")) + name
        connection.request(method, path, body, {"Host": host or server.host})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    return send


def alive() -> bool:
    return True


def running(server: PageServer, *words: str) -> "tuple[threading.Thread, list[object]]":
    """Let a thread run a command; its result is the list's one item in the end."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(server.run(words, SOON_S, alive)))
    thread.start()
    return thread, found


def test_a_file_comes_with_its_content(ask: Ask) -> None:
    assert ask("GET", "model") == (200, b"bytes")


def test_every_answer_isolates_the_page(server: PageServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=SOON_S)
    connection.request("GET", server.url.removeprefix(f"http://{server.host}") + "model")
    with connection.getresponse() as answer:
        assert answer.getheader("Cross-Origin-Opener-Policy") == "same-origin"
        assert answer.getheader("Cross-Origin-Embedder-Policy") == "require-corp"
    connection.close()


@pytest.mark.parametrize("start", ["/", "/wrong/", "//", "/../"])
def test_who_does_not_know_the_address_gets_nothing(ask: Ask, start: str) -> None:
    assert ask("GET", "model", start=start) == (404, b"")


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "OPTIONS", "TRACE"])
def test_a_method_that_the_page_does_not_use_gets_nothing(ask: Ask, method: str) -> None:
    assert ask(method, "model") == (404, b"")


def test_a_name_of_another_host_leads_nowhere(ask: Ask) -> None:
    assert ask("GET", "model", host="evil.example") == (404, b"")


@pytest.mark.parametrize(
    "name", ["../../secret", "..%2f..%2fsecret", "%2e%2e/secret", "/etc/passwd", "./model", "", "..", "none", ".lock"]
)
def test_no_name_leads_out_of_the_folder(ask: Ask, name: str) -> None:
    assert ask("GET", name) == (404, b"")


@pytest.mark.parametrize("name", ["model", "../other", "new"])
def test_nothing_is_written_that_no_command_writes(ask: Ask, folder: Folder, name: str) -> None:
    assert ask("PUT", name, b"changed")[0] == 404
    assert [(one.name, one.read_bytes()) for one in folder.work.iterdir()] == [("model", b"bytes")]


def test_a_command_reaches_the_page_and_its_answer_comes_back(server: PageServer, ask: Ask) -> None:
    thread, found = running(server, "runner.mjs", "--out", "out.bin")
    status, command = ask("POST", "next")
    assert (status, json.loads(command)) == (200, {"id": 1, "argv": ["runner.mjs", "--out", "out.bin"]})
    assert ask("POST", "done", json.dumps(DONE).encode())[0] == 204
    thread.join(SOON_S)
    assert found == [Completed(0, "{}", "")]


def test_an_output_of_the_command_is_written_whole(server: PageServer, ask: Ask, folder: Folder) -> None:
    thread, _ = running(server, "runner.mjs", "--out", "out.bin")
    ask("POST", "next")
    assert ask("PUT", "out.bin", b"12345678")[0] == 204
    ask("POST", "done", json.dumps(DONE).encode())
    thread.join(SOON_S)
    assert (folder.work / "out.bin").read_bytes() == b"12345678"


def test_an_output_that_is_cut_off_leaves_nothing(server: PageServer, ask: Ask, folder: Folder) -> None:
    thread, _ = running(server, "runner.mjs", "--out", "out.bin")
    ask("POST", "next")
    connection = http.client.HTTPConnection(server.host, timeout=SOON_S)
    connection.putrequest("PUT", server.url.removeprefix(f"http://{server.host}") + "out.bin")
    connection.putheader("Content-Length", "9")
    connection.endheaders(b"half")
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.getresponse().status == 400
    connection.close()
    ask("POST", "done", json.dumps(DONE).encode())
    thread.join(SOON_S)
    assert [one.name for one in folder.work.iterdir()] == ["model"]


def test_the_answer_to_another_command_is_not_taken(server: PageServer, ask: Ask) -> None:
    thread, found = running(server, "runner.mjs")
    ask("POST", "next")
    assert ask("POST", "done", json.dumps(DONE | {"id": 7, "returncode": 7}).encode())[0] == 400
    ask("POST", "done", json.dumps(DONE).encode())
    thread.join(SOON_S)
    assert found == [Completed(0, "{}", "")]


@pytest.mark.parametrize("said", [b"", b"{}", b"[1]", b"\xff", json.dumps(DONE | {"stdout": 1}).encode()])
def test_words_that_are_not_the_page_s_end_it(server: PageServer, ask: Ask, said: bytes) -> None:
    thread, found = running(server, "runner.mjs")
    ask("POST", "next")
    assert ask("POST", "done", said)[0] == 400
    thread.join(SOON_S)
    assert [one.stderr.partition(":")[0] for one in found if isinstance(one, Completed)] == [
        "the page said done in words that are not ours"
    ]


def test_a_command_that_is_not_done_in_time_has_no_answer(server: PageServer) -> None:
    assert server.run(["runner.mjs"], 0.1, alive) is None


def test_a_browser_that_ends_has_ended_the_command(server: PageServer) -> None:
    assert server.run(["runner.mjs"], SOON_S, lambda: False) == Completed(1, "", "the browser ended")


def test_a_page_that_dies_has_ended_the_command(server: PageServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=SOON_S)
    connection.request("POST", server.url.removeprefix(f"http://{server.host}") + "alive")
    answer = connection.getresponse()
    thread, found = running(server, "runner.mjs")
    answer.close()
    connection.close()
    thread.join(SOON_S)
    assert [one.returncode for one in found if isinstance(one, Completed)] == [1]


def test_a_page_is_ready_when_it_said_so(server: PageServer, ask: Ask) -> None:
    ask("POST", "hello", json.dumps(HELLO).encode())
    told = server.wait_ready(SOON_S, alive)
    assert told is not None
    assert told.model_dump() == HELLO


def test_a_page_that_says_nothing_is_not_ready(server: PageServer) -> None:
    assert server.wait_ready(0.1, alive) is None
