"""MNN's converter in a process of its own: `python -m mobilekd.backends._mnn_convert FOLDER ARGUMENT...`.

It aborts the process on a graph that it does not know, hence a process of its own. It is called through the
extension module: the scripts of the wheel (`mnnconvert`, `MNN.tools`) run pip and upload usage when imported.
"""

import os
import sys


def main() -> None:
    """Run the converter in FOLDER, where it drops its temporary files."""
    import _tools

    os.chdir(sys.argv[1])
    _tools.mnnconvert(["MNNConvert", *sys.argv[2:]])


if __name__ == "__main__":
    main()
