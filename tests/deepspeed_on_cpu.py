"""DeepSpeed over gloo with the settings of a file of pipelines/accelerate, named by the variable
DEEPSPEED_ON_CPU: on a CPU accelerate would take plain DDP. Import before any trainer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
from accelerate import state
from accelerate.utils import DistributedType

FOLDER = Path(__file__).parents[1] / "pipelines" / "accelerate"
shipped = yaml.safe_load((FOLDER / os.environ["DEEPSPEED_ON_CPU"]).read_text())["deepspeed_config"]
# As accelerate launch hands them on.
NAMES = {
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "zero3_init_flag": "ACCELERATE_DEEPSPEED_ZERO3_INIT",
    "zero3_save_16bit_model": "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
}
os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
for option, variable in NAMES.items():
    if option in shipped:
        os.environ[variable] = str(shipped[option]).lower()
stock = state.AcceleratorState.__init__


def with_deepspeed(self, *args, deepspeed_plugin=None, **kwargs) -> None:
    stock(self, *args, deepspeed_plugin=deepspeed_plugin, **kwargs)
    if deepspeed_plugin is None or self.distributed_type == DistributedType.DEEPSPEED:
        return
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    deepspeed_plugin.set_mixed_precision("no")
    # The tiny policies' parameters are all under the size that ZeRO-3 would keep in one piece.
    stage = deepspeed_plugin.hf_ds_config.config["zero_optimization"]
    stage["stage3_param_persistence_threshold"] = 0
    deepspeed_plugin.select(_from_accelerator_state=True)
    self.deepspeed_plugins = deepspeed_plugin
    self.distributed_type = DistributedType.DEEPSPEED
    state.PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED


state.AcceleratorState.__init__ = with_deepspeed


@contextmanager
def gathered(trainer: Any) -> Iterator[None]:
    """Within it every parameter is there on each rank."""
    with deepspeed.zero.GatheredParameters(list(trainer.model.parameters())):
        yield
