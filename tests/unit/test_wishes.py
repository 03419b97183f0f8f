"""What is wanted of the buckets by all models together."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Query
from reconciler.sources.wishes import Wishes

QUERIES = [Query(f"gs://models/{source}", version) for source in "ab" for version in (None, 1)]
wishes = st.none() | st.dictionaries(st.sampled_from(QUERIES), st.booleans())
changes = st.dictionaries(st.sampled_from("xyz"), wishes)


@given(st.lists(changes, max_size=8))
def test_what_has_changed_adds_up_to_what_all_want(
    steps: list[dict[str, dict[Query, bool]]],
) -> None:
    kept, told, models = Wishes(), dict[Query, bool](), dict[str, dict[Query, bool]]()
    for step in steps:
        for query, is_recheck in kept.change(step).items():
            assert told.get(query) is not is_recheck, "only what is other than before is told"
            if is_recheck is None:
                del told[query]
            else:
                told[query] = is_recheck
        models = {m: wish for m, wish in {**models, **step}.items() if wish is not None}
        wanted = {query for wish in models.values() for query in wish}
        assert told == {
            query: all(wish.get(query, True) for wish in models.values()) for query in wanted
        }
        assert kept.find_gone({"x"}) == models.keys() - {"x"}
        assert all((model in kept) == (model in models) for model in "xyz")
