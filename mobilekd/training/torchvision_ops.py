"""Make `import torchvision`, and with it timm, work beside a CPU build of torch."""

import functools
import importlib.util
from pathlib import Path

import torch


@functools.cache
def declare_torchvision_ops() -> tuple[torch.library.Library, ...]:
    """Declare the two operators that torchvision looks up at import, only where its own library can't load.

    The registry's torchvision is built for CUDA. Beside a CPU build of torch its library does not load, and the
    import dies with "operator torchvision::nms does not exist". Nothing here ever calls the two.

    Returns:
        What keeps the declaration alive (the cache holds it); empty where nothing was declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()  # not installed: nothing to declare for
    try:
        for extension in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
            torch.ops.load_library(extension)  # type: ignore[no-untyped-call]
    except OSError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        return (library,)
    return ()
