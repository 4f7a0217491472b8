"""Weights that FSDP2 has sharded over the ranks (DTensors): reading one in full, with the right
gradient, and exchanging the weights of a model.

In its own forward pass FSDP2 gathers weights and averages their gradients. A weight that is read
outside of it, such as the head for the distillation term, needs both from this module. Every
function is a collective if weights are sharded, and a plain tensor operation if not. Left out:
FSDP1, and ZeRO-3, which gives full weights but no gradients of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, distribute_tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor in its full shape on every rank.

    Its gradient is the mean over ranks, each of which has the gradient of its rows.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    mesh = tensor.device_mesh
    # Without placements DTensor takes the gradient to be equal on all ranks, and each rank keeps
    # the shard of its own.
    gathered = tensor.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if gathered.requires_grad:
        # Partial sums over ranks; FSDP2 averages.
        gathered.register_hook(lambda gradient: gradient / mesh.size())
    return gathered


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` (in the parameter's full shape) on the parameter's device, sharded as it is.

    Of a sharded value the content on rank 0 counts.
    """
    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return value
    if isinstance(value, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def reshard(model: nn.Module) -> None:
    """Drop the full weights that FSDP2 has gathered and kept.

    Afterwards parameters are shards again, and the next forward pass gathers anew.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def lend_weights(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, the parameters of these names hold these values.

    Only for forward passes without gradients. It is safe between a forward and its backward pass,
    for which FSDP2 gathers weights again.

    Args:
        model: The model, whose other parameters stay.
        values: Parameter name -> value of the parameter's shape, laid out as by `shard_like`.
    """
    # A copy that FSDP2 keeps gathered would hide the exchange of shards.
    reshard(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in values}
    originals: dict[str, Tensor] = {}
    try:
        for name, parameter in parameters.items():
            originals[name] = _exchange(parameter, values[name])
        yield
    finally:
        reshard(model)
        for name, original in originals.items():
            _exchange(parameters[name], original)


def _exchange(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Have a parameter hold a value of its shape. Returns: the tensor that it held before."""
    if not isinstance(parameter, DTensor):
        original = parameter.data
        parameter.data = value.to(parameter)
        return original
    # FSDP2 gathers from the storage it knows, so the content is exchanged, not the tensor.
    shard = parameter.detach()
    original = shard.clone()
    shard.copy_(value)
    return original
