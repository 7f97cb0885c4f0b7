"""An S3 server on loopback in a process of its own: moto; with a word, one that has a flaw.

    python -m tests.store.s3_server [no-conditions | denied | full]

Prints its port. Ends when its stdin does.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Start = Callable[..., object]
Environment = dict[str, object]
App = Callable[[Environment, Start], Iterable[bytes]]


def without_conditions(app: App) -> App:
    """A server that takes conditions and does not keep them."""

    def answer(environment: Environment, start: Start) -> Iterable[bytes]:
        for header in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
            environment.pop(header, None)
        return app(environment, start)

    return answer


def always(status: str, code: str) -> Callable[[App], App]:
    """A server that answers writes and listings with one error, and has no objects."""

    def flaw(_: App) -> App:
        def answer(environment: Environment, start: Start) -> Iterable[bytes]:
            start(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code></Error>".encode()]

        return answer

    return flaw


FLAWS: dict[str, Callable[[App], App]] = {
    "none": lambda app: app,
    "no-conditions": without_conditions,
    "denied": always("403 Forbidden", "AccessDenied"),
    "full": always("507 Insufficient Storage", "XMinioStorageFull"),
}


def main(flaw: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    app = FLAWS[flaw](DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["none"]))
