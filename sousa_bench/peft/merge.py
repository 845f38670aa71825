"""Adapters merged into the weights that they adapt."""

from __future__ import annotations

import copy

import peft
from peft.utils import ModulesToSaveWrapper
from torch import nn


def merged(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone in evaluation mode with the adapter merged into its weights: no PEFT module is left.

    Raises:
        NotImplementedError: The method doesn't merge.
    """
    backbone = copy.deepcopy(backbone).eval()
    if not isinstance(backbone, peft.PeftModel):
        return backbone
    for name, module in list(backbone.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # PEFT's own unloading takes them for single layers
            backbone.set_submodule(name, module.modules_to_save["default"])
    return backbone.merge_and_unload()
