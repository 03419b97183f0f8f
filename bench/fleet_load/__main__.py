"""How much a fleet of 1,000 nodes asks of a git server and of a bucket, at rest and at a commit.

    python -m bench.fleet_load [--nodes 1000] [--write docs/performance/fleet_load]

One real agent is counted: on a real git server, on fake-gcs-server, with 20 models of 6 files, at
rest and when a commit brings a new version of one model. A thousand of them ask a thousand times as
much; how that is spread over the seconds follows from when they ask, which is played with the
agent's own intervals and jitter (16 hours of rest, 200 commits, agents that were started at any
time). What is woken, or started by cron, is taken to come within one and the same second. No
request's time is measured, so that the machine's speed is in none of the figures.

Beside them is `rclone sync` from cron at every minute, as the agents' work is often done without
them. Its requests are counted on the same bucket.
"""

import argparse
import time
from pathlib import Path

from bench.fleet_load.fleet import play, play_cron
from bench.fleet_load.long_past import measure_long_past
from bench.fleet_load.node import count_node, count_rclone
from bench.fleet_load.report import Report, render, write_report

POLL_SECONDS = 15.0
MINUTE_SECONDS = 60.0
RARE_SECONDS = 300.0
"""How often git is looked at where something wakes the node."""


def main() -> None:
    """Count, play, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--note", default="", help="a sentence for the report")
    parser.add_argument("--write", type=Path, metavar="STEM")
    options = parser.parse_args()
    nodes = options.nodes
    latest = count_node(has_locks=False, has_bundle=False)
    locked = count_node(has_locks=True, has_bundle=False)
    bundled = count_node(has_locks=True, has_bundle=True)
    counted = {
        "git, `version: latest`": latest,
        "git, locks": locked,
        "bundle in the bucket, locks": bundled,
    }
    peers = [peer for flag in ((), ("--fast-list",)) if (peer := count_rclone(*flag))]
    if not peers:
        print("RCLONE TOOK NO PART: it is not installed (bench/sync/peers.txt)", flush=True)
    rows = [
        play("git polled, `version: latest`", latest, nodes, POLL_SECONDS, POLL_SECONDS),
        play("git polled, locks", locked, nodes, POLL_SECONDS, POLL_SECONDS),
        play("git by webhook and every 5 min, locks", locked, nodes, RARE_SECONDS, 0.0),
        play("bundle polled, locks", bundled, nodes, POLL_SECONDS, POLL_SECONDS),
        play("bundle polled every minute, locks", bundled, nodes, MINUTE_SECONDS, MINUTE_SECONDS),
        play("bundle by Pub/Sub and every 5 min, locks", bundled, nodes, RARE_SECONDS, 0.0),
        *(play_cron(peer, nodes) for peer in peers),
    ]
    head = (
        f"Counted {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by"
        f" `python -m bench.fleet_load --nodes {nodes}`. {options.note}"
    ).strip()
    report = Report(head, counted, peers, nodes, rows, measure_long_past())
    print(render(report))
    if options.write:
        write_report(options.write, report)


if __name__ == "__main__":
    main()
