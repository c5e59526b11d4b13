"""SIGINT and SIGTERM stop a training between two steps, not within one."""

import signal
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The training was stopped by a signal after its state was saved. ``exit_code`` is 128 + the signal's number, as in
    shells."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class DeferredSignals:
    """While entered, SIGINT and SIGTERM are only recorded in ``received``; the loop raises ``interrupted`` when it has
    saved its state.

    A second SIGINT raises KeyboardInterrupt at once, except ``under_torchrun``, which sends its own SIGINT after the
    terminal's. Outside the main thread, where Python allows no signal handlers, nothing is recorded.
    """

    def __init__(self, under_torchrun: bool = False) -> None:
        self.under_torchrun = under_torchrun
        self.received: int | None = None
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> "DeferredSignals":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers_before[number] = signal.signal(number, self._record)
        except ValueError:  # not the main thread
            self._handlers_before.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT and not self.under_torchrun:
            raise KeyboardInterrupt
        self.received = number

    @property
    def interrupted(self) -> Interrupted:
        """The error to raise; SIGTERM's if another process got the signal."""
        return Interrupted(self.received or signal.SIGTERM)
