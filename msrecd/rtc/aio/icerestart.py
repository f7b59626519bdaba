"""A new way between two peers while what is above it goes on: the ICE restart that aiortc lacks.

https://w3c.github.io/webrtc-pc/#dom-rtcpeerconnection-restartice. Encryption, senders and receivers stay as they are,
on an aiortc transport whose aioice connection is exchanged once the new one has found its way. Until then the old one
is used, and goes on to be used where the new one finds none.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiortc import rtcicetransport

from msrecd.rtc.aio.consent import keep_consent

log = logging.getLogger(__name__)


class IceWay:
    """Stands between a transport of aiortc's and the aioice connection that it uses at present."""

    def __init__(self, transport: Any, configuration: Any) -> None:
        self.transport = transport
        self._configuration = configuration
        self._active = transport._connection
        keep_consent(self._active)
        self._old_gatherer: Any = None  # while a restart is under way
        self._offered: Any = None  # a gatherer whose credentials an offer of ours may name
        self._decided: asyncio.Future[None] | None = None
        self._stop_transport = transport.stop
        transport._recv, transport._send, transport.stop = self._recv, self._send, self._stop

    @property
    def has_begun(self) -> bool:
        return self._active.remote_username is not None

    @property
    def is_restarting(self) -> bool:
        return self._decided is not None

    def is_new(self, ice: Any) -> bool:
        """Whether a peer's parameters are others than those of the connection that is used."""
        known = (self._active.remote_username, self._active.remote_password)
        return self.has_begun and known != (ice.usernameFragment, ice.password)

    # --- an offer of ours --------------------------------------------------------------------------------------------

    def offer(self, credentials: tuple[str, str] | None) -> tuple[str, str]:
        """From here to `offered` descriptions name new credentials, the same for all transports; gives them."""
        own, password = credentials or (None, None)
        self._offered = rtcicetransport.RTCIceGatherer(
            iceServers=self._configuration.iceServers,
            iceTransportPolicy=self._configuration.iceTransportPolicy,
            local_username=own,
            local_password=password,
        )
        self._old_gatherer = self.transport.iceGatherer
        self._set_gatherer(self._offered)
        parameters = self._offered.getLocalParameters()
        return parameters.usernameFragment, parameters.password

    def offered(self) -> None:
        """The description has been made; nothing changes before it is set."""
        self._set_gatherer(self._old_gatherer)
        self._old_gatherer = None

    def begin_if_offered(self, ice: Any, gathering: Any) -> None:
        """Our own description is set: a restart begins where it names the credentials of `offer`."""
        offered, self._offered = self._offered, None
        if offered is not None and offered.getLocalParameters().usernameFragment == ice.usernameFragment:
            self.begin(gathering, offered)

    # --- a restart ---------------------------------------------------------------------------------------------------

    def begin(self, gathering: Any, gatherer: Any = None) -> None:
        """Descriptions name, and candidates go to, a connection that is not used yet.

        Args:
            gathering: called when it gathers candidates.
            gatherer: of an offer; a new one by default.
        """
        if gatherer is None:
            gatherer = rtcicetransport.RTCIceGatherer(
                iceServers=self._configuration.iceServers, iceTransportPolicy=self._configuration.iceTransportPolicy
            )
        gatherer.on("statechange", gathering)
        self._old_gatherer = self.transport.iceGatherer
        self._decided = asyncio.get_running_loop().create_future()
        self._set_gatherer(gatherer)
        self.transport._connection = gatherer._connection
        gatherer._connection.ice_controlling = self._active.ice_controlling
        keep_consent(gatherer._connection)

    async def finish(self, ice: Any) -> None:
        """Both sides have described themselves: find the way, and take it."""
        transport, new, old, decided = self.transport, self.transport._connection, self._active, self._decided
        new.remote_is_lite = ice.iceLite
        new.remote_username, new.remote_password = ice.usernameFragment, ice.password
        transport._RTCIceTransport__setState("checking")
        try:
            await new.connect()
            if transport.state == "closed":
                raise ConnectionError("it was closed meanwhile")
        except ConnectionError as exc:
            log.info("an ICE restart found no way (%s); the connection stays on the old one", exc)
            self._set_gatherer(self._old_gatherer)
            transport._connection, unused = old, new
            is_lost = not old._nominated
        else:
            self._active, unused, is_lost = new, old, False
        self._old_gatherer = self._decided = None
        if self._active is new:
            monitor = transport._RTCIceTransport__monitor_task
            transport._RTCIceTransport__monitor_task = asyncio.ensure_future(transport._monitor())
            if monitor is not None:
                monitor.cancel()
        if transport.state != "closed":
            transport._RTCIceTransport__setState("failed" if is_lost else "completed")
        if decided is not None:
            decided.set_result(None)
        await unused.close()

    def _set_gatherer(self, gatherer: Any) -> None:
        self.transport._RTCIceTransport__iceGatherer = gatherer

    async def _stop(self) -> None:
        unused, self.transport._connection = self.transport._connection, self._active
        if unused is not self._active:
            await unused.close()
        await self._stop_transport()

    async def _send(self, data: bytes) -> None:
        await self._active.send(data)

    async def _recv(self) -> Any:
        while True:
            used = self._active
            try:
                return await used.recv()
            except ConnectionError:
                if self._decided is not None:
                    await asyncio.shield(self._decided)
                if self._active is used:
                    raise
