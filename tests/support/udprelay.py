"""A network between two WebRTC peers that a test can thin out or cut: UDP relays in the place of their candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class _Port(asyncio.DatagramProtocol):
    """One side's address as the other one sees it, or the socket by which one sender's datagrams leave."""

    def __init__(self, network: Network, forward: Callable[[bytes, Any], None]) -> None:
        self._network, self._forward = network, forward

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._forward(data, addr)


class Network:
    """`through` puts relays into a description; `drops` says of each datagram of media whether it is lost."""

    def __init__(self) -> None:
        self.is_cut = False
        self.drops: Callable[[bytes], bool] = lambda _: False
        self.forwarded = 0
        self.delay_s = 0.0  # of each datagram, either way
        self._transports: list[Any] = []

    def close(self) -> None:
        for transport in self._transports:
            transport.close()

    async def through(self, sdp: str) -> str:
        """The description with one candidate in each section: a relay to the first IPv4 candidate that was there."""
        lines, relays = [], {}
        for line in sdp.splitlines():
            if not line.startswith("a=candidate:"):
                lines.append(line)
                continue
            parts = line.split()
            if parts[2].lower() != "udp" or ":" in parts[4] or parts[7] != "host":
                continue
            target = (parts[4], int(parts[5]))
            if target not in relays:
                relays[target] = await self._relay(target)
            parts[4:6] = ["127.0.0.1", str(relays[target])]
            lines.append(" ".join(parts))
        return "\r\n".join(lines) + "\r\n"

    async def _relay(self, target: tuple[str, int]) -> int:
        """Port at which `target` is reached."""
        loop = asyncio.get_running_loop()
        exits: dict[Any, Any] = {}  # by the sender's address: the socket from which its datagrams come

        def enter(data: bytes, sender: Any) -> None:
            if self._passes(data):
                if sender not in exits:
                    exits[sender] = asyncio.ensure_future(exit_for(sender))
                exits[sender].add_done_callback(lambda made: self._later(made.result().sendto, data, target))

        async def exit_for(sender: Any) -> Any:
            def back(data: bytes, _: Any) -> None:
                if self._passes(data):
                    self._later(entrance.sendto, data, sender)

            transport, _ = await loop.create_datagram_endpoint(lambda: _Port(self, back), local_addr=("127.0.0.1", 0))
            self._transports.append(transport)
            return transport

        entrance, _ = await loop.create_datagram_endpoint(lambda: _Port(self, enter), local_addr=("127.0.0.1", 0))
        self._transports.append(entrance)
        return int(entrance.get_extra_info("sockname")[1])

    def _later(self, send: Callable[[bytes, Any], None], data: bytes, target: Any) -> None:
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, send, data, target)
        else:
            send(data, target)

    def _passes(self, data: bytes) -> bool:
        if self.is_cut or (data[0] >= 128 and self.drops(data)):  # RTP and RTCP begin with their version, 2
            return False
        self.forwarded += 1
        return True
