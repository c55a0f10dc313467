"""Decides whether members are trained as one program, and whether that program is compiled.

Both depend only on the members, their data, the device's type and, for compiling, on an installed compiler.
"""

import torch

from trainables.config import TrainingConfig
from trainables.packing.compiled import compiler_at_hand

CPU_PACKED_PARAMETERS = 400_000
"""The most parameters of a member that is packed on a CPU; larger members together do not fit into its cache."""
CPU_COMPILED_OPERATIONS = 5e12
"""Compiling pays on a CPU from this number of floating-point operations of a whole training, about a minute of work. It
saves a third of that."""


def packing_pays(config: TrainingConfig, parameters: int, device: torch.device) -> bool:
    """Whether members of one shape train faster together than in turn.

    Args:
        config: of any member.
        parameters: of one member.
        device: where to train.
    """
    if device.type != "cpu":
        return True
    return config.encoder.packs_on_cpu and config.decoder.packs_on_cpu and parameters <= CPU_PACKED_PARAMETERS


def compiling_pays(config: TrainingConfig, parameters: int, images: int, members: int, device: torch.device) -> bool:
    """Whether the training is long enough to compile its step.

    Args:
        config: of any member.
        parameters: of one member.
        images: to train on.
        members: of the cohort.
        device: where to train.
    """
    if not compiler_at_hand(device):
        return False
    # A dense layer takes 2 operations for each parameter and image forward, and 4 backward.
    return device.type != "cpu" or 6 * parameters * images * config.epochs * members >= CPU_COMPILED_OPERATIONS
