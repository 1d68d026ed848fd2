"""A step of training, recorded once as a CUDA graph and replayed.

A step of these small networks is several hundred short kernels. To launch them one by one takes the
host longer than the GPU needs to run them; a recorded step is launched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP = 3  # steps before the recording, in which libraries reserve their memory


class Recorded:
    """An update of weights ``(cells)``: run as it is a few times, then recorded and replayed.

    Parameters
    ----------
    update
        Changes tensors on one GPU in place, and takes indices ``[batch]`` there, always as many. It
        must not copy anything to or from the host, or wait for the GPU.
    """

    def __init__(self, update: Callable[[Tensor], None]) -> None:
        self._update = update
        self._done = 0
        self._graph = torch.cuda.CUDAGraph()
        self._cells: Tensor | None = None  # the graph reads the indices from here

    def __call__(self, cells: Tensor) -> None:
        if self._done < _WARM_UP:
            self._done += 1
            self._beside(cells)
            return
        if self._cells is None:
            self._cells = cells.clone()
            with torch.cuda.graph(self._graph):  # records, and runs nothing
                self._update(self._cells)
        self._cells.copy_(cells)
        self._graph.replay()

    def _beside(self, cells: Tensor) -> None:
        """Run on a stream of its own, as CUDA graphs ask of the steps before the recording."""
        main, own = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        own.wait_stream(main)
        with torch.cuda.stream(own):
            self._update(cells)
        main.wait_stream(own)
