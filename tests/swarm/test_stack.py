"""deploy/swarm's stack on two nodes of a real Swarm: engines, overlay, secrets, health checks.

The agent's image is built by its Dockerfile; the stand-in plays the part of tensorflow/serving.
Each test leaves two healthy nodes behind.
"""

from tests.swarm.fleet import Fleet


def test_what_git_says_is_served_on_both_nodes(fleet: Fleet) -> None:
    fleet.wait_served("ranker", 41)
    fleet.wait_healthy("agent", "serving")


def test_a_commit_changes_the_version_and_a_revert_takes_it_back(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)
    fleet.commit("Revert: serve ranker 41", ranker=41)
    fleet.wait_served("ranker", 41)
