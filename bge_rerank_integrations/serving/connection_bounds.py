"""How many connections there are, and how many requests begin at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .settings import ServerSettings

# connections beyond the bound, each for one request that is a probe or is refused
EXTRA_CONNECTIONS = 100
# requests that begin in one turn of the event loop, and that are looked at
_BEGIN_IN_A_TURN = 8
_LOOK_AT_IN_A_TURN = 200


class Bounded(Protocol):
    """What is asked of a connection.

    :ivar idle_since: when its last request ended; 0 before one and in one.
    """

    transport: asyncio.Transport
    is_extra: bool
    idle_since: float

    @property
    def is_silent(self) -> bool:
        """Whether nothing of a request has come, or nothing since the last one."""

    def begin(self) -> None:
        """It is the turn of its request, which waited."""


class Connections:
    """The connections of one server, those in a TLS handshake too.

    :param on_malformed: called for each request that is no HTTP.
    :param refuse: the head of a request → its response, if the head alone is enough to refuse it,
        and the size of the body that is dropped then.
    """

    def __init__(
        self,
        settings: ServerSettings,
        on_malformed: Callable[[], None] = lambda: None,
        refuse: Callable[[bytes], tuple[bytes, int] | None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.on_malformed = on_malformed
        self.refuse = refuse
        # requests that wait for their turn, and how many have begun in this turn
        self._waiting: deque[Bounded] = deque()
        self._begun = 0
        self._has_turn = False
        # in the order in which they came
        self.opened: dict[Bounded, None] = {}
        # accepted and not made: until when they may be
        self.handshakes: dict[Bounded, float] = {}

    def may_begin(self, connection: Bounded) -> bool:
        """Whether a request may begin now; else its connection is told later.

        Of a thousand that come at once a few begin in each turn of the event loop, so that the
        others can be refused by what became of the first.
        """
        if self._begun >= _BEGIN_IN_A_TURN:
            self._waiting.append(connection)
            return False
        if not self._has_turn:
            self._has_turn = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1
        return True

    def _next_turn(self) -> None:
        self._begun = 0
        for _ in range(min(len(self._waiting), _LOOK_AT_IN_A_TURN)):
            if self._begun < _BEGIN_IN_A_TURN:
                self._waiting.popleft().begin()
        self._has_turn = bool(self._begun or self._waiting)
        if self._has_turn:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def enter_handshake(self, connection: Bounded, now: float) -> None:
        """Count a connection before it is made, which with TLS is after the handshake.

        :raises ConnectionRefusedError: if there are too many; asyncio then drops the connection.
        """
        for ended in [each for each, until in self.handshakes.items() if until < now]:
            del self.handshakes[ended]
        bound = self.settings.max_connections + 2 * EXTRA_CONNECTIONS
        if len(self.opened) + len(self.handshakes) >= bound:
            raise ConnectionRefusedError("too many connections")
        self.handshakes[connection] = now + self.settings.header_timeout_s

    def add(self, connection: Bounded) -> int:
        """Add a connection that is made; the longest idle one makes room for it.

        Beyond the bound the oldest one makes room that has sent nothing, so that silent clients
        cannot keep a probe out.

        :returns: how many connections there are beyond the bound.
        """
        self.handshakes.pop(connection, None)
        self.opened[connection] = None
        opened = [each for each in self.opened if not each.transport.is_closing()]
        extra = len(opened) - self.settings.max_connections
        idle = [each for each in opened if each.idle_since]
        if extra > 0 and idle:
            min(idle, key=lambda each: each.idle_since).transport.close()
            return extra - 1
        silent = next((each for each in opened if each.is_extra and each.is_silent), None)
        if extra > EXTRA_CONNECTIONS and silent is not None:
            silent.transport.close()
            return extra - 1
        return extra
