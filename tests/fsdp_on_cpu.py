"""FSDP2 over gloo with the settings of pipelines/accelerate/fsdp2.yaml, for tests: on a CPU
accelerate would take plain DDP. Import before any trainer.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from accelerate import state
from accelerate.utils import DistributedType

shipped = yaml.safe_load(
    (Path(__file__).parents[1] / "pipelines" / "accelerate" / "fsdp2.yaml").read_text()
)["fsdp_config"]
# As accelerate launch hands them on.
os.environ |= {
    "ACCELERATE_USE_FSDP": "true",
    **{name.upper(): str(value) for name, value in shipped.items()},
}
stock = state.AcceleratorState.__init__


def with_fsdp(self, *args, fsdp_plugin=None, **kwargs) -> None:
    stock(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


state.AcceleratorState.__init__ = with_fsdp
