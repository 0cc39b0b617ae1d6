"""A real engine client in a process of its own, driven by lines of JSON on standard input.

Why a child: the engine's Go runtime may abort, and must not take the tests with it. Answers and events go to standard
output as lines of JSON: `{"id": n, "ok": value}` or `{"id": n, "error": text}`, and `{"event": name, ...}`.
Whatever the engine prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tomada.sandbox.machine import load_trusting_engine

_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def say(**line: Any) -> None:
    """Write one line to the test."""
    _out.write(json.dumps(line) + "\n")


def text_of(message: Any) -> str:
    """The text of an engine message, whatever its kind."""
    return str(message.conversation or message.extendedTextMessage.text)


def jid_text(jid: Any) -> str:
    """An engine address as text."""
    device = f":{jid.Device}" if jid.Device else ""
    return f"{jid.User}{device}@{jid.Server}"


class Child:
    """One client and what the test may ask of it."""

    def __init__(self, database: str, name: str) -> None:
        from neonize.aioze import events
        from neonize.aioze.client import NewAClient
        from neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2 import DeviceProps

        props = DeviceProps(os=name, platformType=DeviceProps.CHROME)
        self.client = NewAClient(database, uuid=name, props=props)
        self.messages: dict[str, Any] = {}
        for event in (name for name in events.__all__ if name.endswith("Ev")):
            if event != "NewsLetterMessageMetaEv":
                self.client.event(getattr(events, event))(self._listener(event))
        self.client.event.qr(self._on_qr)

    async def _on_qr(self, _client: Any, data: bytes) -> None:
        say(event="qr", text=data.decode())

    def _listener(self, event: str) -> Any:
        async def listen(_client: Any, message: Any) -> None:
            say(event=event, **self._describe(event, message))

        return listen

    def _describe(self, event: str, message: Any) -> dict[str, Any]:
        if event == "MessageEv":
            source = message.Info.MessageSource
            self.messages[message.Info.ID] = message
            return {
                "id": message.Info.ID,
                "text": text_of(message.Message),
                "kinds": [field.name for field, _ in message.Message.ListFields()],
                "chat": jid_text(source.Chat),
                "sender": jid_text(source.Sender),
                "sender_alt": jid_text(source.SenderAlt),
                "from_me": source.IsFromMe,
                "group": source.IsGroup,
                "push_name": message.Info.Pushname,
            }
        if event == "ReceiptEv":
            source = message.MessageSource
            return {
                "ids": list(message.MessageIDs),
                "type": int(message.Type),
                "sender": jid_text(source.Sender),
                "from_me": source.IsFromMe,
            }
        return {"text": str(message).replace("\n", " ")[:2000]}

    async def start(self) -> None:
        """Connect; needed once."""
        self.task = await self.client.connect()

    async def pump_ends(self) -> None:
        """Wait until the engine's event pump has ended."""
        await asyncio.wait({self.task}, timeout=10)
        assert self.task.done()

    async def own_name(self) -> str:
        """The account's name, empty until the phone has said it."""
        return str((await self.client.get_me()).PushName)

    async def code(self, number: str) -> str:
        """Ask for a pairing code."""
        return str(await self.client.PairPhone(number, True))

    async def send(self, to: str, text: str) -> str:
        """Send a text to a number or group."""
        response = await self.client.send_message(self._jid(to), text)
        return str(response.ID)

    async def read(self, id: str, kind: str = "READ") -> None:  # noqa: A002 - the wire's word
        """Mark a received message as read or played."""
        from neonize.utils.enum import ReceiptType

        source = self.messages[id].Info.MessageSource
        await self.client.mark_read(id, chat=source.Chat, sender=source.Sender, receipt=ReceiptType[kind])

    async def document(self, to: str, size: int) -> str:
        """Send a document of so many bytes."""
        body = bytes(index % 251 for index in range(1000)) * (size // 1000)
        response = await self.client.send_document(
            self._jid(to), body, filename="x.bin", mimetype="application/octet-stream"
        )
        return str(response.ID)

    async def download(self, id: str) -> int:  # noqa: A002
        """Download the medium of a received message; its size."""
        return len(await self.client.download_any(self.messages[id].Message))

    async def vote(self, id: str) -> list[str]:  # noqa: A002
        """Decrypt the poll vote with this id; the hashes of the chosen options, in hex."""
        from neonize.proto.Neonize_pb2 import ReturnFunctionWithError

        # The wrapper forgets to unpack the answer of the library, so it is done here.
        body = self.messages[id].SerializeToString()
        library = self.client._NewAClient__client
        answer = await library.DecryptPollVote(self.client.uuid, body, len(body))
        vote = ReturnFunctionWithError.FromString(answer.contents.get_bytes())
        if vote.Error:
            raise RuntimeError(vote.Error)
        return [chosen.hex() for chosen in vote.PollVoteMessage.selectedOptions]

    async def cast(self, id: str, option: str) -> str:  # noqa: A002
        """Vote for one option of a poll that we received; the vote's id."""
        poll = self.messages[id].Info
        vote = await self.client.build_poll_vote(poll, [option])
        response = await self.client.send_message(poll.MessageSource.Chat, vote)
        return str(response.ID)

    async def presence(self, available: bool) -> None:
        """Say that we are there, or not."""
        from neonize.utils.enum import Presence

        await self.client.send_presence(Presence.AVAILABLE if available else Presence.UNAVAILABLE)

    async def subscribe(self, to: str) -> None:
        """Ask to hear of a number's presence."""
        await self.client.subscribe_presence(self._jid(to))

    async def typing(self, to: str) -> None:
        """Show that we are typing."""
        from neonize.utils.enum import ChatPresence, ChatPresenceMedia

        await self.client.send_chat_presence(
            self._jid(to),
            ChatPresence.CHAT_PRESENCE_COMPOSING,
            ChatPresenceMedia.CHAT_PRESENCE_MEDIA_TEXT,
        )

    async def create_group(self, name: str, numbers: list[str]) -> str:
        """Create a group; its address."""
        group = await self.client.create_group(name, [self._jid(number) for number in numbers])
        return jid_text(group.JID)

    async def change_members(self, group: str, numbers: list[str], action: str) -> None:
        """ADD, REMOVE, PROMOTE or DEMOTE members."""
        from neonize.utils.enum import ParticipantChange

        jids = [self._jid(number) for number in numbers]
        await self.client.update_group_participants(self._jid(group), jids, ParticipantChange[action])

    async def group(self, group: str) -> dict[str, Any]:
        """What the network says of a group."""
        info = await self.client.get_group_info(self._jid(group))
        return {
            "subject": info.GroupName.Name,
            "topic": info.GroupTopic.Topic,
            "announce": info.GroupAnnounce.IsAnnounce,
            "members": {jid_text(p.PhoneNumber): p.IsAdmin for p in info.Participants},
        }

    async def groups(self) -> list[str]:
        """The groups we are in."""
        return [jid_text(group.JID) for group in await self.client.get_joined_groups()]

    async def block(self, number: str, blocked: bool) -> None:
        """Block or unblock a number."""
        from neonize.utils.enum import BlocklistAction

        action = BlocklistAction.BLOCK if blocked else BlocklistAction.UNBLOCK
        await self.client.update_blocklist(self._jid(number), action)

    async def call(self, name: str, arguments: list[Any]) -> str:
        """Any other method of the client; an argument that looks like a number or address becomes one."""
        made = [self._jid(a) if isinstance(a, str) and (a.isdigit() or a.endswith("@g.us")) else a for a in arguments]
        return str(await getattr(self.client, name)(*made)).replace("\n", " ")

    async def stop(self) -> None:
        """Stop the client."""
        await self.client.stop()

    def _jid(self, to: str) -> Any:
        from neonize.utils import build_jid

        return build_jid(*to.split("@")) if "@" in to else build_jid(to)


async def main() -> None:
    """Read commands until standard input ends."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(32))
    child = Child(sys.argv[2], sys.argv[3])
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(run(child, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)


async def run(child: Child, command: dict[str, Any]) -> None:
    """Do one command and answer it."""
    number, do = command.pop("id_"), command.pop("do")
    try:
        say(id=number, ok=await getattr(child, do)(**command))
    except Exception as error:  # noqa: BLE001 - the test gets to see it
        say(id=number, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    load_trusting_engine(bytes.fromhex(sys.argv[1]))
    asyncio.run(main())
