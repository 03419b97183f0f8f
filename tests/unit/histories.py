"""Commits of a config repo, one after the other, as one node lives through them."""

import hashlib
from collections.abc import Mapping

from reconciler.config_repo.assemble import File, Fleet, assemble
from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.layout import Place
from reconciler.config_repo.tree import Blob, survey


class History:
    """What is in force after each commit, with the memory of what was good."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.good: dict[str, str] = {}
        self._documents: dict[str, Document] = {}

    def commit(self, changes: Mapping[str, str | None]) -> Fleet:
        for path, text in changes.items():
            if text is None:
                del self.texts[path]
            else:
                self.texts[path] = text
        found = survey({path: Blob(name(text), len(text)) for path, text in self.texts.items()})
        files = [self._parse(path, found.places[path]) for path in found.readable]
        fleet = assemble(files, found.problems, self.good, lambda path: self._recall(path))
        self.good = dict(fleet.good)
        return fleet

    def _parse(self, path: str, place: Place) -> File:
        text = self.texts[path]
        content = parse_document(place.kind, text.encode())
        if isinstance(content, Document):
            self._documents[name(text)] = content
        return File(path, place, name(text), content)

    def _recall(self, path: str) -> Document | None:
        return self._documents.get(self.good[path])


def name(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
