"""`reconciler run` and `reconciler once`: the agent as a process."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import read_settings, settings_options, start_logging
from reconciler.files import be_private, lock_folder
from reconciler.settings import Settings, parse_duration
from reconciler.tracing import open_tracing

if TYPE_CHECKING:
    from reconciler.watches import Watches

_log = logging.getLogger(__name__)

_GARBAGE_THRESHOLD = 10_000


@click.command()
@settings_options
def run(**flags: Any) -> None:
    """Run the agent of this node until SIGTERM or SIGINT.

    Every option has an environment twin, shown in brackets, and may stand in the file named by
    --config; an option wins over the environment, the environment over the file.

    Exit codes: 0 stopped by a signal, 1 ended by an error, 2 settings that cannot work.
    """
    settings = read_settings(flags)
    if settings.pubsub_subscription:
        from reconciler.triggers.pubsub import check_subscription

        check_subscription(settings.pubsub_subscription)
    with _own_folders(settings):
        start_logging(settings.log_format, _terminal_handler(settings))
        sys.exit(asyncio.run(_run(settings)))


@click.command()
@settings_options
@click.option("--timeout", default="10m", metavar="DURATION", help="Give up after this long.")
def once(timeout: str, **flags: Any) -> None:
    """Bring this node to its desired state once, without a status endpoint, then end.

    Exit codes: 0 converged, 1 not (the reasons are printed), 2 settings that cannot work.
    """
    settings = read_settings(flags)
    timeout_seconds = parse_duration(timeout)
    with _own_folders(settings):
        start_logging(settings.log_format, _terminal_handler(settings))
        sys.exit(asyncio.run(_once(settings, timeout_seconds)))


def _own_folders(settings: Settings) -> ExitStack:
    """Hold both folders for this process alone: two agents would undo each other's work.

    From here on what the agent writes is its user's alone, the models apart.
    """
    be_private()
    shared = (settings.models_dir, settings.serving_config_file)
    holds_shared = any(path.is_relative_to(settings.state_dir) for path in shared)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(settings.state_dir, 0o711 if holds_shared else 0o700))
        stack.enter_context(lock_folder(settings.models_dir))
        return stack.pop_all()


def _terminal_handler(settings: Settings) -> logging.Handler | None:
    if settings.log_format != "text" or not sys.stderr.isatty():
        return None
    from reconciler.cli.progress import terminal_handler

    return terminal_handler()


def _follow_notifications(name: str, watches: "Watches") -> Coroutine[Any, Any, None]:
    from reconciler.triggers.pubsub import Notifications
    from reconciler.triggers.subscription import Subscription

    return Notifications(
        Subscription(name),
        watches.find_sources,
        watches.wake_sources,
        watches.note_notifications,
    ).follow()


async def _run(settings: Settings) -> int:
    # What the agent makes stays, or goes without being looked for. Python looks after every 700
    # values that came, which would be a twentieth of the start.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    from reconciler.agent import Agent
    from reconciler.fleet.app import fleet_routes
    from reconciler.fleet.desk import FleetDesk
    from reconciler.fleet.expected import FollowedReader
    from reconciler.fleet.poll import FleetPoller
    from reconciler.status.access import Access
    from reconciler.status.certificate import open_certificate
    from reconciler.status.hooks import HookSettings
    from reconciler.status.server import StatusServer

    agent = Agent(settings, open_tracing(settings.node, os.environ))
    poller = FleetPoller(access=Access.of(settings))
    desk = FleetDesk(FollowedReader(agent.watches.git).read, settings.node, poller=poller)
    server = StatusServer(
        agent.board,
        settings.listen,
        token_file=settings.sync_token_file,
        hooks=HookSettings(settings.webhook_secret_file, settings.branch),
        others=fleet_routes(desk),
        read_token_file=settings.read_token_file,
        certificate=open_certificate(settings.tls_cert_file, settings.tls_key_file),
    )
    host = settings.listen.rpartition(":")[0]
    _log.info("node %s: status at %s://%s:%d/", settings.node, server.scheme, host, server.port)
    others = [server.serve(), desk.run()]
    if settings.pubsub_subscription:
        others.append(_follow_notifications(settings.pubsub_subscription, agent.watches))
    if sys.stderr.isatty() and settings.log_format == "text":
        from reconciler.cli.progress import show_progress

        others.append(show_progress(lambda: agent.fetching))
    work = asyncio.create_task(agent.run(*others))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        _log.info("stopped; what is served goes on being served")
        return 0
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            _log.error("the agent ends by an error", exc_info=error)
        return 1
    finally:
        with suppress(asyncio.CancelledError):
            await agent.close()
    return 1


async def _once(settings: Settings, timeout_seconds: float) -> int:
    from reconciler.agent import Agent
    from reconciler.single_pass import run_once

    agent = Agent(settings, open_tracing(settings.node, os.environ))
    try:
        converged = await run_once(agent, timeout_seconds)
    finally:
        await agent.close()
    plan = agent.plan
    for outcome in (*plan.outcomes, *plan.removals) if plan else ():
        click.echo(f"{outcome.phase:10} {outcome.deployment.model}: {outcome.sentence}")
    for condition in plan.conditions if plan else ():
        if not condition.holds:
            click.echo(f"{condition.name}: {condition.sentence}")
    if plan is None and not agent.watches.git.source_verified.holds:
        click.echo(f"SourceVerified: {agent.watches.git.source_verified.sentence}")
    elif plan is None and agent.watches.git.trouble is not None:
        click.echo(f"GitReachable: {agent.watches.git.trouble.sentence}")
    return 0 if converged else 1
