"""Whether the head of a cluster still answers.

Ray waits a minute for a head that died and then ends the process that asks, whatever it was at. So
it is asked before each call that would wait for it.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from pie_fast.errors import WorkerError

#: seconds for which a head may be away: one that is watched is started again
AWAY = 10.0

#: seconds between two looks while nothing happens
BETWEEN = 5.0


@dataclass
class Head:
    """The head of a cluster, by its address.

    Attributes:
        address: HOST:PORT.
    """

    address: str
    _looked: float = float("-inf")
    _gone: bool = False

    def glance(self) -> None:
        """As `check`, at most every few seconds."""
        if time.monotonic() - self._looked > BETWEEN:
            self.check()

    def check(self) -> None:
        """Connect to it.

        Raises:
            WorkerError: It did not answer for some seconds, now or before; with the address.
        """
        end = time.monotonic() + AWAY
        while not self._gone:
            if self._answers():
                self._looked = time.monotonic()
                return
            self._gone = time.monotonic() > end
            time.sleep(min(0.5, AWAY))
        raise WorkerError(
            f"the Ray cluster at {self.address} is gone: its head gave no answer for "
            f"{AWAY:g} s; start it again, and go on with pie-fast resume or --resume"
        )

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=AWAY).close()
        except OSError:
            return False
        return True
