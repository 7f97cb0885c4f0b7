"""Run a notebook: `python -m tests.docs.run_notebook IN OUT`; its sockets end with this process."""

import sys


def main(source: str, out: str) -> None:
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(source, as_version=4)
    settings = Config(KernelManager={"transport": "ipc"})  # no port is opened
    NotebookClient(notebook, timeout=540, kernel_name="python3", config=settings).execute()
    nbformat.write(notebook, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
