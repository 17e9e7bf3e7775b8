"""Where to compute."""

import torch

from data.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device called ``auto`` (a CUDA GPU or else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises InputError if there is none of that name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("neither cpu, cuda nor mps")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("no Apple GPU that PyTorch can use is there")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0][:200]}; use --device auto") from error
    return device
