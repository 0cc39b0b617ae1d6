"""The machine program over an engine that does as it is told, for what the real one cannot be brought to.

Run as a script with the machine's own arguments. JOURNAL_BYTES_MAX in the environment bounds its journal, FINISH_S its
end. A session's name may be an order: `hear N CHARS` lets N texts of that length arrive, on a thread of the engine's.
Every send is answered at once.
"""

import functools
import os
from threading import Thread

from tomada.engine import port
from tomada.machines import journal, process


class Session:
    def __init__(self, spec: port.SessionSpec, emit: port.Emit) -> None:
        self.spec = spec
        self.emit = emit

    async def start(self) -> None:
        order, *figures = self.spec.session_name.split()
        if order == "hear":
            Thread(target=self._hear, args=[int(figure) for figure in figures], daemon=True).start()

    def _hear(self, count: int, chars: int) -> None:
        for number in range(count):
            text = port.TextReceived(f"{number} ".ljust(chars, "x"))
            self.emit(port.MessageReceived(f"m{number}", "55", None, "55", None, False, False, 1, "Ana", text))

    async def stop(self) -> None:
        pass

    async def send(self, chat: str, content: port.Content) -> port.Sent:
        return port.Sent(f"wa-{content.message}", 1)

    async def show_typing(self, chat: str) -> None:
        pass

    async def phone_code(self, phone: str) -> str:
        return "ABCD-1234"

    async def logout(self) -> None:
        pass

    async def alive(self) -> bool:
        return True


class Engine:
    name, version = "none", "1"

    def open(self, spec: port.SessionSpec, emit: port.Emit) -> Session:
        return Session(spec, emit)

    def recycle_due(self) -> str | None:
        return None


if __name__ == "__main__":
    bytes_max = int(os.environ.get("JOURNAL_BYTES_MAX", journal.BYTES_MAX))
    vars(process).update(
        Journal=functools.partial(journal.Journal, bytes_max=bytes_max),
        FINISH_S=float(os.environ.get("FINISH_S", process.FINISH_S)),
        _engine=lambda _: Engine(),
    )
    process.main()
