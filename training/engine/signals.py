"""A signal stops a training between two steps, not within one."""

import signal
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal came, and what has been done so far is saved. ``exit_code`` is 128 + its number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Stop:
    """While entered, SIGINT and SIGTERM are only noted; ``check`` raises Interrupted where it is good to stop.

    A second SIGINT interrupts at once, except under torchrun, whose own signals follow the terminal's. Outside the main
    thread signals stay with whoever handles them.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient = patient
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            self._before.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT and not self.patient:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def error(self) -> Interrupted:
        return Interrupted(self.signal or signal.SIGTERM)
