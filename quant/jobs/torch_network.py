"""A PyTorch network: torchvision's by name, or one from a user's callable; with weights from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.errors import QuantError
from quant.settings.user_code import OF_USER_CODE, described, load_callable

if TYPE_CHECKING:
    import torch


def network_from_spec(spec: str, weights: Path | None = None) -> torch.nn.Module:
    """The network in evaluation mode, on the CPU.

    Args:
        spec: A torchvision name such as `resnet18`, or `file.py:callable`, which takes no argument.
        weights: File with a state dict (or `{"state_dict": ...}`); None keeps the network's initial weights. Nothing is
            downloaded.

    Raises:
        QuantError: torch or torchvision is not installed, there is no such network, or the weights do not fit.
    """
    torch_module = _torch()
    make = load_callable(spec, "export") if ".py" in spec else _torchvision_factory(spec)
    try:
        network = make() if ".py" in spec else make(weights=None)
    except OF_USER_CODE as error:
        raise QuantError(f"export: {spec}: {described(error, Path(spec.rpartition(':')[0]))}") from error
    if not isinstance(network, torch_module.nn.Module):
        raise QuantError(f"export: {spec}: expected a torch.nn.Module, found {type(network).__name__}")
    if weights is not None:
        _load_weights(network, weights)
    result: torch.nn.Module = network.eval()
    return result


def _torch() -> Any:  # noqa: ANN401 - a module
    try:
        import torch
    except ImportError as error:
        raise QuantError("export: needs PyTorch, which is not installed; pip install 'calib-int8[torch]'") from error
    return torch


def _torchvision_factory(name: str) -> Any:  # noqa: ANN401 - torchvision has many kinds of factories
    try:
        from torchvision import models
    except ImportError as error:
        raise QuantError(
            f"export: '{name}' is a torchvision name, but torchvision is not installed; "
            "pip install 'calib-int8[torch]', or give file.py:callable"
        ) from error
    try:
        return models.get_model_builder(name)
    except ValueError as error:
        raise QuantError(
            f"export: torchvision has no model '{name}'; give one such as resnet18, or file.py:callable"
        ) from error


def _load_weights(network: torch.nn.Module, path: Path) -> None:
    try:
        state = _torch().load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, depending on what is wrong with the file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise QuantError(f"{path}: cannot be read as weights: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise QuantError(f"{path}: expected a state dict, found {type(state).__name__}; save model.state_dict()")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise QuantError(f"{path}: the weights do not fit the network: {reason}") from error
