"""A short run of the fuzzing, in which hypothesis makes what breaks something small."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import KINDS, TOKENS, Change, apply
from tests.fuzz.target import Target
from tests.fuzz.targets import open_targets

FAST_INPUTS, SLOW_INPUTS = 120, 15

shares = st.floats(0, 1, allow_nan=False)
tokens = st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4)
changes = st.builds(Change, st.sampled_from(KINDS), shares, shares.map(lambda s: s**4), tokens)


@pytest.fixture(scope="module")
def targets() -> Iterator[list[Target]]:
    with open_targets() as opened:
        yield opened


def test_what_the_fuzzing_begins_from_breaks_nothing(targets: list[Target]) -> None:
    assert len(targets) > 20
    for target in targets:
        for data in target.corpus:
            target.run(data)


@pytest.mark.parametrize("is_slow", [False, True])
def test_nothing_from_outside_breaks_anything(
    targets: list[Target], is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    for target in targets:
        if target.is_slow is is_slow:
            fuzz(target, SLOW_INPUTS if is_slow else FAST_INPUTS)


def fuzz(target: Target, inputs: int) -> None:
    @settings(max_examples=inputs, database=None, derandomize=True)
    @given(st.sampled_from(target.corpus), st.lists(changes, min_size=1, max_size=6))
    def take(data: bytes, made: list[Change]) -> None:
        target.run(apply(data, made))

    take()
