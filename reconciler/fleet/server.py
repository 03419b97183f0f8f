"""`reconciler fleet serve`: the page of the fleet as a process of its own, beside no node."""

import asyncio
import signal

from reconciler.fleet.app import make_fleet_app
from reconciler.fleet.desk import FleetDesk
from reconciler.status.server import WebServer

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class FleetServer(WebServer):
    """The server of a fleet's page."""

    def __init__(self, desk: FleetDesk, listen: str) -> None:
        """Show `desk`; raises SettingsError when `listen` cannot be had."""
        super().__init__(make_fleet_app(desk), listen, "the fleet's page")
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
