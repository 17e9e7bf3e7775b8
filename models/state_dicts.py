"""State dicts as other programs save them: with prefixes, within a dict, with entries that are no weights."""

from torch import Tensor

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile and Lightning modules
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
COUNTERS = ("total_ops", "total_params")  # of profilers


def bare_weights(content: dict) -> dict[str, Tensor] | None:
    """The weights by the names that the network itself gives them; None if there are none."""
    if not _are_weights(content):
        held = [content[name] for name in HOLDERS if _are_weights(content.get(name))]
        if len(held) != 1:
            return None
        content = held[0]
    weights = {name: value for name, value in content.items() if name.rpartition(".")[2] not in COUNTERS}
    while weights and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in weights)), None)):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _are_weights(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )
