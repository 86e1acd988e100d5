"""What the dashboard's process holds for its visitors: the last so many things of a kind, in memory alone."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most so many values by key, for any number of threads; the one used longest ago is the first to go.

    >>> held = Recent[str, int](most=2)
    >>> for key in "ab":
    ...     held.put(key, ord(key))
    >>> held.get("a"), held.put("c", 99), held.get("b")
    (97, None, None)
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._puts = 0

    def put(self, key: K, value: V) -> None:
        """Hold a value, in place of an earlier one of that key."""
        with self._lock:
            self._puts += 1
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def get(self, key: K) -> V | None:
        """Return a value, or None where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def drop(self, is_unwanted: Callable[[K], bool]) -> None:
        """Forget the values of all keys of which a function says so."""
        with self._lock:
            for key in [key for key in self._values if is_unwanted(key)]:
                del self._values[key]

    def items(self) -> list[tuple[K, V]]:
        """Return keys and values as they are now, the one used longest ago first."""
        with self._lock:
            return list(self._values.items())

    @property
    def puts(self) -> int:
        """How often something was put here, which changes whenever a value may have."""
        with self._lock:
            return self._puts
