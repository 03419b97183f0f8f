"""What all models of a node together want listed, kept up to date by what changes.

Several models may share a source: a query is asked as long as one of them wants it, and is a mere
re-check only where it is to all of them. A change of one model among 10,000 costs the work for one.
"""

from collections.abc import Mapping

from reconciler.model import Query

Wish = Mapping[Query, bool]
"""What one model wants listed, and whether only to compare an installed pin (True)."""


class Wishes:
    """The wish of every model."""

    def __init__(self) -> None:
        self._by_model: dict[str, Wish] = {}
        self._by_query: dict[Query, dict[str, bool]] = {}

    def __contains__(self, model: str) -> bool:
        """Tell whether the wish of `model` is known."""
        return model in self._by_model

    def find_gone(self, models: set[str]) -> set[str]:
        """Return the models that have a wish and are not among `models`."""
        return self._by_model.keys() - models

    def change(self, wishes: Mapping[str, Wish | None]) -> dict[Query, bool | None]:
        """Take each model's new wish (None: the model is gone) and return what that changes.

        Query -> whether it is a mere re-check now, None where nobody wants it any more.
        """
        changed: dict[Query, bool | None] = {}
        for model, wish in wishes.items():
            before = self._by_model.get(model, {})
            for query in {*before, *(wish or {})}:
                if query not in changed:
                    changed[query] = self._find(query)
                voices = self._by_query.setdefault(query, {})
                if wish is not None and query in wish:
                    voices[model] = wish[query]
                else:
                    voices.pop(model, None)
            if wish is None:
                self._by_model.pop(model, None)
            else:
                self._by_model[model] = wish
        return {query: now for query, was in changed.items() if (now := self._settle(query)) != was}

    def _find(self, query: Query) -> bool | None:
        voices = self._by_query.get(query)
        return all(voices.values()) if voices else None

    def _settle(self, query: Query) -> bool | None:
        if not self._by_query[query]:
            del self._by_query[query]
        return self._find(query)
