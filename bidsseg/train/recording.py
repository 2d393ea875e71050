"""Work on a GPU recorded once and then played again at each call.

To start the thousands of small parts of a training step takes the host longer than the GPU needs for them. A CUDA graph
starts all at once; it holds for inputs of the shapes that it was recorded with.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Work = Callable[[Sequence[Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Recording:
    """A graph with the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: dict[str, Tensor]

    def play(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        return {name: value.clone() for name, value in self.outputs.items()}


@dataclass
class Recorder:
    """Recordings of one piece of work, by the shapes of its inputs and whatever else it depends on.

    What the work changes beside its outputs, such as gradients, must stay in the same memory between calls.
    """

    seen: set[Hashable] = field(default_factory=set)
    recordings: dict[Hashable, Recording] = field(default_factory=dict)
    pool: Any = None
    "Memory that all recordings share: none is played while another is."

    def run(self, work: Work, inputs: Sequence[Tensor], key: Hashable) -> dict[str, Tensor]:
        """The work's outputs. On a GPU the first call with a key sets libraries up, and the second is recorded."""
        key = (key, *(one.shape for one in inputs))
        if inputs[0].device.type != "cuda" or key not in self.seen:
            self.seen.add(key)
            return work(inputs)
        if key not in self.recordings:
            self.recordings[key] = self._recorded(work, inputs)
        return self.recordings[key].play(inputs)

    def _recorded(self, work: Work, inputs: Sequence[Tensor]) -> Recording:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph, own = torch.cuda.CUDAGraph(), [one.clone() for one in inputs]
        with torch.cuda.graph(graph, pool=self.pool):
            outputs = work(own)
        return Recording(graph, own, outputs)
