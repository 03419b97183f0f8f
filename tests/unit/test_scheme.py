"""Names of versions and their numbers: each rule is reversible and keeps the order."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Rule, VersionScheme
from reconciler.model.scheme import INT64_MAX, check_pattern

SEMVER = VersionScheme(Rule.SEMVER)
DAYS = VersionScheme(Rule.DATES, pattern="%Y-%m-%d")
SECONDS = VersionScheme(Rule.DATES, pattern="v%d.%m.%Y_%H%M+%S")
HASHES = VersionScheme(Rule.NAMES, names=(("77ab01d", 2), ("9f3c2ab", 1)))
SCHEMES = [VersionScheme(), SEMVER, DAYS, SECONDS, HASHES]

parts = st.integers(0, 999_999)
releases = st.tuples(st.integers(0, 9_223_371), parts, parts)
moments = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0)
)
numbers = st.one_of(
    st.integers(0, INT64_MAX),
    st.integers(0, 10),
    moments.map(lambda moment: int(moment.strftime("%Y%m%d%H%M%S"))),
    moments.map(lambda moment: int(moment.strftime("%Y%m%d000000"))),
)
texts = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[0-9]{1,7}(\.[0-9]{1,7}){0,3}(-rc1|\+5)?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", fullmatch=True),
    st.sampled_from(["9f3c2ab", "77ab01d", "9F3C2AB", "77ab01d ", "latest"]),
)


@given(st.sampled_from(SCHEMES), numbers)
def test_the_name_of_a_number_leads_back_to_it(scheme: VersionScheme, number: int) -> None:
    name = scheme.name(number)
    assert name is None or scheme.parse(name) == number


@given(st.sampled_from(SCHEMES), texts)
def test_the_number_of_a_name_leads_back_to_it(scheme: VersionScheme, name: str) -> None:
    number = scheme.parse(name)
    assert number is None or (scheme.name(number) == name and 0 <= number <= INT64_MAX)


@given(releases, releases)
def test_the_order_of_releases_is_the_order_of_their_numbers(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    first, second = (SEMVER.parse("{}.{}.{}".format(*release)) for release in (one, other))
    assert first is not None
    assert second is not None
    assert (first < second) == (one < other)


@given(moments, moments)
def test_the_order_of_moments_is_the_order_of_their_numbers(one: datetime, other: datetime) -> None:
    first, second = (SECONDS.parse(each.strftime(SECONDS.pattern)) for each in (one, other))
    assert first is not None
    assert second is not None
    assert (first < second) == (one < other)


@pytest.mark.parametrize(
    ("scheme", "name", "number"),
    [
        (SEMVER, "1.43.13", 1_000_043_000_013),
        (SEMVER, "0.0.0", 0),
        (SEMVER, "9223371.999999.999999", 9_223_371_999_999_999_999),
        (SEMVER, "9223372.36854.775807", INT64_MAX),
        (DAYS, "2026-11-21", 20_261_121_000_000),
        (DAYS, "2024-02-29", 20_240_229_000_000),
        (SECONDS, "v21.11.2026_0930+05", 20_261_121_093_005),
        (HASHES, "9f3c2ab", 1),
    ],
)
def test_a_name_has_the_number_that_the_rule_says(
    scheme: VersionScheme, name: str, number: int
) -> None:
    assert scheme.parse(name) == number
    assert scheme.name(number) == name


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        *((SEMVER, name) for name in ("01.2.3", "v1.2.3", "1.2", "1.2.3.4", "1.2.3-rc1")),
        *((SEMVER, name) for name in ("1.2.3+5", "1.2.1000000", "1.1000000.0", " 1.2.3", "42")),
        *((SEMVER, name) for name in ("9223372.36854.775808", "1.2.3\n", "١.2.3", "-1.2.3")),
        *((DAYS, name) for name in ("2026-1-21", "2026-02-29", "0999-01-01", "2026-11-21 ")),
        *((DAYS, name) for name in ("2026-13-01", "2026-11-21x", "20261121", "٢٠٢٦-11-21")),
        (SECONDS, "v21x11x2026_0930+05"),
        (SECONDS, "v21.11.2026_2430+05"),
        *((HASHES, name) for name in ("9F3C2AB", "1", "latest", "")),
    ],
)
def test_what_is_written_otherwise_is_no_version(scheme: VersionScheme, name: str) -> None:
    assert scheme.parse(name) is None


@pytest.mark.parametrize(
    ("scheme", "number"),
    [(DAYS, 5), (DAYS, 20_261_121_000_001), (DAYS, 20_260_229_000_000), (HASHES, 3), (SEMVER, -1)],
)
def test_a_number_without_a_name_is_still_shown(scheme: VersionScheme, number: int) -> None:
    assert scheme.name(number) is None
    assert scheme.alias(number) is None
    assert scheme.show(number) == f"number {number}"


def test_only_names_that_are_no_numbers_are_aliases() -> None:
    assert VersionScheme().alias(42) is None
    assert VersionScheme().show(42) == "42"
    assert SEMVER.alias(42) == SEMVER.show(42) == "0.0.42"


@pytest.mark.parametrize(
    ("pattern", "lack"),
    [
        ("%Y-%m-%d", None),
        ("%Y%m%dT%H%M%S", None),
        ("%Y-%m", "lacks %d"),
        ("%H", "lacks %Y and %m and %d"),
        ("%Y-%m-%d-%Y", "holds %Y twice"),
        ("%Y-%j", "holds %j; known are %Y, %m, %d, %H, %M and %S"),
        ("%Y-%m-%d%", "holds %; known are %Y, %m, %d, %H, %M and %S"),
        ("%Y/%m/%d", "holds '/', which cannot be in the name of a folder here"),
    ],
)
def test_a_pattern_of_dates_is_checked(pattern: str, lack: str | None) -> None:
    assert check_pattern(pattern) == lack
