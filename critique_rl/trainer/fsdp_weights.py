"""Weights that FSDP2 has spread over the ranks (DTensors): reading one whole with the gradient it
should have, and exchanging what a model holds.

Within its own forward pass FSDP2 gathers weights and averages their gradients; what is read outside
of it, such as the head for the distillation term, is for us to average. Everything here is a
collective where weights are sharded, and plain where they are not. Left out: FSDP1, and ZeRO-3,
which gives weights whole but no gradients of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, distribute_tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor. Its gradient is averaged over the ranks, of which each has that of its own
    rows.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    mesh = tensor.device_mesh
    # Without placements DTensor takes every rank's gradient for the same, and each rank keeps its
    # shard of its own.
    gathered = tensor.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if gathered.requires_grad:
        gathered.register_hook(lambda gradient: gradient / mesh.size())
    return gathered


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` where `parameter` is: on its device, and sharded as it is. Of sharded values rank 0's
    count.
    """
    if not isinstance(parameter, DTensor) or isinstance(value, DTensor):
        return value.to(parameter.device)
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )


def reshard(model: nn.Module) -> None:
    """Drop weights that FSDP2 has gathered and kept, so that parameters are shards again and the
    next forward pass gathers anew.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def lend_weights(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the parameters of these names hold these values (laid out as `like` does).
    For forward passes without gradients only.

    Safe between a forward and its backward pass: FSDP2 gathers again for the latter.
    """
    reshard(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in values}
    own: dict[str, Tensor] = {}
    try:
        for name, parameter in parameters.items():
            own[name] = _put(parameter, values[name])
        yield
    finally:
        reshard(model)
        for name, held in own.items():
            _put(parameters[name], held)


def _put(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Have a parameter hold a value; what it held before."""
    if not isinstance(parameter, DTensor):
        held, parameter.data = parameter.data, value.to(parameter)
        return held
    # FSDP2 gathers from storage it knows: its content is exchanged, not the tensor.
    shard = parameter.detach()
    held = shard.clone()
    shard.copy_(value)
    return held
