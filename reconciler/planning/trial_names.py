"""What a version is called in the server while it is tried (golden.py says why and when)."""

_SUFFIX = "@golden"
"""No model of a config repo can be called so."""


def trial_name(model: str) -> str:
    """Return the name under which versions of the model are tried."""
    return model + _SUFFIX


def is_trial(name: str) -> bool:
    """Whether the server's name is that of a trial."""
    return name.endswith(_SUFFIX)


def model_of(name: str) -> str:
    """Return the model whose folder a name of the server stands for: its own, or a trial's."""
    return name.removesuffix(_SUFFIX)
