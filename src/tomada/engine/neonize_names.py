"""The names of a session's chats: a person's own name, a group's subject.

A person's name comes with every message, and the engine's store keeps the last one. A group's subject comes with none:
WhatsApp is asked for it at the group's first message, and changes of it are told by an event from then on.

The question goes out on a thread of its own, because whoever wants the name may be the library's event thread, and what
that has not handed out yet, WhatsApp believes delivered. So it waits for a moment at most; and where WhatsApp lets one
wait longer, nobody waits again before it has answered. Messages are told without the name then, like those of a group
whose subject WhatsApp would not say; that is tried again after the next login.
"""

from concurrent.futures import Executor
from threading import Condition
from typing import Any

import structlog

from tomada.engine.neonize_addresses import GROUP, HIDDEN, PERSON, jid, server_of
from tomada.engine.neonize_client import Client

log = structlog.get_logger("tomada.engine")

WAIT_S = 1.0
SUBJECTS_MAX = 1000  # of one session; some 100 KB
ASKED_MAX = 4  # questions under way


class Names:
    """Of one session; may be asked from any thread."""

    def __init__(self, client: Client, pool: Executor, wait_s: float = WAIT_S) -> None:
        self._client = client
        self._pool = pool
        self._wait_s = wait_s
        self._subjects: dict[str, str] = {}  # of a group's id; empty: WhatsApp would not say
        self._asked: set[str] = set()
        self._slow = False
        self._stopped = False
        self._news = Condition()

    def of(self, chat: Any, alt: Any = None) -> str:
        """The name of a chat (a JID), empty if it is not known; `alt` is the same person under the other kind of id."""
        server = server_of(chat)
        try:
            if server == GROUP:
                return self._subject(str(chat.User))
            return self._person(chat, alt) if server in {PERSON, HIDDEN} else ""
        except Exception:  # a message is not lost for want of a name
            log.exception("name_not_looked_up")
            return ""

    def renamed(self, group: Any, subject: str) -> None:
        """A group (a JID) has a new subject."""
        with self._news:
            self._keep(str(group.User), subject)

    def login(self) -> None:
        """Connected (again): what WhatsApp would not say before may be asked again."""
        with self._news:
            self._subjects = {group: subject for group, subject in self._subjects.items() if subject}

    def stop(self) -> None:
        """The session ends: nobody asks or waits any more."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def _person(self, *jids: Any) -> str:
        for known_as in jids:
            if known_as is not None and known_as.User and self._client.running:
                found = self._client.library.contact(self._client.uuid, jid(known_as.User, server_of(known_as)))
                if name := found.PushName or found.FullName or found.BusinessName:
                    return str(name)
        return ""

    def _subject(self, group: str) -> str:
        with self._news:
            if group not in self._subjects and self._asking(group) and not self._slow:
                answered = self._news.wait_for(lambda: self._stopped or group in self._subjects, self._wait_s)
                self._slow = not answered
            return self._subjects.get(group, "")

    def _asking(self, group: str) -> bool:
        """Whether the question is under way, or goes out now."""
        if group not in self._asked and len(self._asked) < ASKED_MAX and self._client.paired and not self._stopped:
            self._asked.add(group)
            self._pool.submit(self._ask, group)
        return group in self._asked

    def _ask(self, group: str) -> None:
        subject = ""
        try:
            subject = self._client.library.group_subject(self._client.uuid, jid(group, GROUP))
        except Exception:
            log.exception("group_not_looked_up")
        with self._news:
            self._asked.discard(group)
            self._slow = False
            self._keep(group, self._subjects.get(group) or subject)  # a change that came meanwhile is newer

    def _keep(self, group: str, subject: str) -> None:
        self._subjects.pop(group, None)
        self._subjects[group] = subject
        if len(self._subjects) > SUBJECTS_MAX:
            del self._subjects[next(iter(self._subjects))]
        self._news.notify_all()
