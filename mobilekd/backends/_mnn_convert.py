"""MNN's converter in a process of its own: `python -m mobilekd.backends._mnn_convert FOLDER ARGUMENT...`.

It aborts the process on a graph that it does not know, hence a process of its own. It is called through the
extension module: the scripts of the wheel (`mnnconvert`, `MNN.tools`) run pip and upload usage when imported.
"""

import os
import sys
from pathlib import Path

_LARGE_WEIGHTS = ".__convert_external_data.bin"


def main() -> None:
    """Run the converter in FOLDER, where it drops its temporary files.

    It puts weights of linear layers from 65536 elements on into such a file and reads them back after it has rounded
    the layers' weights (3.6.1, writeFb.cpp): the layer then holds floats, and scales of 0. Where it can't open the
    file, it keeps them in memory.
    """
    import _tools

    os.chdir(sys.argv[1])
    Path(_LARGE_WEIGHTS).mkdir(exist_ok=True)
    _tools.mnnconvert(["MNNConvert", *sys.argv[2:]])


if __name__ == "__main__":
    main()
