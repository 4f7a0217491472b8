"""FSDP2 over gloo, for tests: accelerate knows FSDP on accelerators only, and takes plain DDP on a CPU. Import before the first trainer is made."""

from __future__ import annotations

import os

from accelerate import state
from accelerate.utils import DistributedType

os.environ |= {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
stock = state.AcceleratorState.__init__


def with_fsdp(self, *args, fsdp_plugin=None, **kwargs) -> None:
    stock(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


state.AcceleratorState.__init__ = with_fsdp
