"""The deployments that people mean by a name: `ranker`, or `search/ranker`."""

from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.layout import Kind
from reconciler.errors import ConfigError

_NAMED = 3


class UnknownModelError(ConfigError):
    """No deployment has the name that was asked for."""

    reason = "UnknownModel"


@dataclass(frozen=True, slots=True, order=True)
class Named:
    """Where a deployment is and what it is called, whether its file can be followed or not."""

    path: str
    group: str
    model: str


def find_named(fleet: Fleet, name: str) -> list[Named]:
    """Return the deployments that `name` means, one for each group that has the model.

    Raises UnknownModelError, with the nearest names, where there is none.
    """
    known = {
        path: Named(path, deployment.group, deployment.model)
        for path, deployment in fleet.deployments.items()
    }
    for path, (file, _) in fleet.broken.items():
        if file.place.kind is Kind.DEPLOYMENT:
            known.setdefault(path, Named(path, file.place.group, file.model))
    group, _, model = name.rpartition("/")
    found = sorted(
        item for item in known.values() if item.model == model and group in ("", item.group)
    )
    if not found:
        names = {text for item in known.values() for text in (item.model, _key(item))}
        near = get_close_matches(name, sorted(names), n=_NAMED, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "look into deployments/"
        raise UnknownModelError(f"there is no deployment of {name!r}; {hint}")
    return found


def find_one(fleet: Fleet, name: str) -> Named:
    """Return the deployment that `name` means; raises UnknownModelError for none and several."""
    found = find_named(fleet, name)
    if len(found) > 1:
        keys = " or ".join(map(_key, found))
        raise UnknownModelError(f"{name} is in {len(found)} groups; name one: {keys}")
    return found[0]


def _key(item: Named) -> str:
    return f"{item.group}/{item.model}"
