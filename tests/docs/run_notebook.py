"""Run a notebook: `python -m tests.docs.run_notebook IN OUT`; its sockets end with this process."""

import sys


def main(source: str, out: str) -> None:
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(source, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc")
    manager.kernel_spec.argv[0] = sys.executable
    NotebookClient(notebook, timeout=540, km=manager).execute()
    nbformat.write(notebook, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
