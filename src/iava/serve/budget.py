"""The memory that requests hold while they wait or run."""

import threading

from iava.serve.errors import RETRY_AFTER, ApiError


class Budget:
    """Bytes that all requests may hold together. For any thread.

    Args:
        limit: number of bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.held = 0
        """Bytes that are held now."""

    def share(self) -> "Share":
        """Returns the share of one request."""
        return Share(self)

    def take(self, count: int) -> None:
        """Takes bytes.

        Raises:
            ApiError: 429 if too few bytes are left.
        """
        with self._lock:
            if self.held + count > self._limit:
                message = f"the requests that wait hold {self.held:,} bytes of {self._limit:,}: try again later"
                raise ApiError(429, message, code="queue_full", headers=RETRY_AFTER)
            self.held += count

    def give_back(self, count: int) -> None:
        """Gives bytes back."""
        with self._lock:
            self.held -= count


class Share:
    """The bytes that one request holds, until `release`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> None:
        """Holds more bytes.

        Raises:
            ApiError: 429, see `Budget.take`.
        """
        self._budget.take(count)
        self._held += count

    def release(self) -> None:
        """Gives all bytes back."""
        self._budget.give_back(self._held)
        self._held = 0
