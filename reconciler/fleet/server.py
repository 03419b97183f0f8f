"""`reconciler fleet serve`: the page of the fleet as a process of its own, beside no node."""

import asyncio
import signal
from pathlib import Path

from reconciler.fleet.app import make_fleet_app
from reconciler.fleet.desk import FleetDesk
from reconciler.status.certificate import Certificate
from reconciler.status.server import WebServer

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class FleetServer(WebServer):
    """The server of a fleet's page."""

    def __init__(
        self,
        desk: FleetDesk,
        listen: str,
        read_token_file: Path | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Show `desk` to those who know the read token, where there is one.

        Raises SettingsError when `listen` cannot be had.
        """
        app = make_fleet_app(desk, read_token_file)
        super().__init__(app, listen, "the fleet's page", certificate)
        self._desk = desk

    async def run(self) -> None:
        """Answer requests and ask the nodes until the process is told to end."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)
        asking = asyncio.create_task(self._desk.run(), name="fleet")
        # Where asking dies the page must not go on showing what was seen last.
        asking.add_done_callback(lambda _: self.stop())
        try:
            await self.serve()
        finally:
            asking.cancel()
            await asyncio.wait({asking})
        if not asking.cancelled():
            asking.result()
