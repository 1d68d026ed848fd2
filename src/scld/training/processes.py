"""The processes that train one model together, on one machine or on several.

Each computes the gradient of its part of every batch; the mean over processes is the gradient of
the batch, so that all keep the same weights. Everything else is computed by each of them, and
written by the first.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from scld.errors import RequestError, check_int

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those of a fit; alone by default.

    Parameters
    ----------
    rank
        Its number, from 0.
    number
        Of processes.
    fabric
        Lightning Fabric, which started them and lets them speak to each other.
    """

    rank: int = 0
    number: int = 1
    fabric: Any = None

    @classmethod
    def start(
        cls, devices: Any, nodes: Any, device: torch.device, batches: Sequence[int] = ()
    ) -> Processes:
        """Start the other processes of this machine, or join those that torchrun or SLURM started.

        Those that are started here run the same script from its beginning.

        Parameters
        ----------
        devices
            Processes on each machine; one for each GPU if ``device`` is one.
        nodes
            Machines.
        device
            Where the networks are.
        batches
            Sizes of batches, which the number of processes must divide.
        """
        devices, nodes = check_int("devices", devices, 1), check_int("nodes", nodes, 1)
        if devices * nodes == 1:
            return cls()
        for batch in batches:
            if batch % (devices * nodes):
                seen = f"{devices * nodes} processes cannot share batches of {batch}"
                raise RequestError(f"devices: {seen}; use a number that divides {batch}")
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            advice = "install it with pip install 'scld[distributed]', or leave devices out"
            raise RequestError(f"devices: Lightning Fabric is not installed; {advice}") from error
        accelerator = "cuda" if device.type == "cuda" else "cpu"
        settings = {"devices": devices, "num_nodes": nodes, "strategy": "ddp"}
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        fabric = Fabric(accelerator=accelerator, **settings)
        fabric.launch()
        atexit.register(_leave)
        return cls(fabric.global_rank, fabric.world_size, fabric)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows progress."""
        return self.rank == 0

    def part(self, cells: Tensor) -> Tensor:
        """The part of a batch that this process computes."""
        return cells[self.rank :: self.number]

    def average_gradients(self, module: nn.Module) -> None:
        """Replace the gradients by their means over processes, whose parts have the same size."""
        if self.number == 1:
            return
        gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
        joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
        mean = self.fabric.all_reduce(joined, reduce_op="mean")
        parts = mean.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def of_first(self, value: Value) -> Value:
        """The value that the first process has."""
        same: Value = value if self.number == 1 else self.fabric.broadcast(value)
        return same

    def wait(self) -> None:
        """Until all processes are here."""
        if self.number > 1:
            self.fabric.barrier()


ALONE = Processes()


def _leave() -> None:
    """End the connection while Python still runs; its threads can abort a process that ends."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is to speak for all that `Processes.start` joined."""
    distributed = torch.distributed
    joined = distributed.is_available() and distributed.is_initialized()
    return not joined or distributed.get_rank() == 0
