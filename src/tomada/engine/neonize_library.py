"""The shared library inside the neonize wheel, called directly: a dozen functions, each through the gate.

neonize's Python client is not used (see neonize_protos.py); its Go library is, by the C functions it exports. This
module knows their signatures and nothing else: no state of clients, no events.

The library is process-wide and cannot be unloaded, so there is one `Library` per process. Strings and buffers that it
returns are copied and freed here. A call on a client that is not in its maps dereferences nil in Go and aborts the
process: callers must hold a client that runs (neonize_client.py sees to it).
"""

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tomada.engine.environment import ENGINE_ENVIRONMENT
from tomada.engine.gate import Change, Gate
from tomada.engine.neonize_protos import companion, glue, neonize_folder
from tomada.engine.port import EngineRefused

VERSION = "0.5.2"
# Codes of the events that are asked for; the numbers are the library's.
DEVICE, PAIR_STATUS, CONNECTED, LOGGED_OUT, REPLACED, BAN, CONNECT_FAILURE, OUTDATED = 0, 2, 3, 6, 7, 8, 9, 10
STREAM_ERROR, DISCONNECTED, MESSAGE, RECEIPT, CHAT_PRESENCE, PRESENCE, UNDECRYPTABLE = 11, 12, 17, 18, 19, 20, 44
GROUP_CHANGE = 22
_OF_THE_CONNECTION = PAIR_STATUS, CONNECTED, LOGGED_OUT, REPLACED, BAN, CONNECT_FAILURE, OUTDATED, STREAM_ERROR
_OF_CHATS = DISCONNECTED, MESSAGE, RECEIPT, CHAT_PRESENCE, PRESENCE, UNDECRYPTABLE, GROUP_CHANGE
SUBSCRIBED = bytes((*_OF_THE_CONNECTION, *_OF_CHATS))

OnText = Callable[[bytes, str], None]  # client id, text
OnEvent = Callable[[bytes, int, bytes], None]  # client id, code, serialized event
OnLog = Callable[[bytes], None]  # a serialized glue.LogEntry

_STRING_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_EVENT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)


class _Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Proxy(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_char_p),
        ("no_websocket", ctypes.c_bool),
        ("only_login", ctypes.c_bool),
        ("no_media", ctypes.c_bool),
    ]


def library_path() -> Path:
    """The library's file for this computer, as the wheel ships it. Never downloaded."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    ending = "dylib" if platform.system() == "Darwin" else "so"
    return neonize_folder() / f"neonize-{platform.system().lower()}-{machine}.{ending}"


class Library:
    """The loaded library. Methods block and may be called from any thread."""

    def __init__(self, gate: Gate, on_qr: OnText, on_status: OnText, on_event: OnEvent, on_log: OnLog):
        """Load it. Callbacks come on threads of the library and must not raise; raises EngineRefused without it."""
        path = library_path()
        if not path.exists():
            raise EngineRefused(f"{path.name} is missing: install the neonize wheel for this platform")
        if ENGINE_ENVIRONMENT.items() - os.environ.items():
            raise EngineRefused(f"this process must be started with {ENGINE_ENVIRONMENT} in its environment")
        self.gate = gate
        self.names_given = 0  # how often the process-wide device name was set
        self._go: Any = _declared(ctypes.CDLL(str(path)))
        version = self._go.GetVersion().decode()
        if version != VERSION:
            raise EngineRefused(f"the library says it is version {version}; this adapter is written for {VERSION}")
        self._callbacks = (  # kept for ever: Go may call them as long as the process lives
            _STRING_CALLBACK(lambda uuid, text: on_qr(_string(uuid), _string(text).decode())),
            _STRING_CALLBACK(lambda uuid, text: on_status(_string(uuid), _string(text).decode())),
            _EVENT_CALLBACK(lambda uuid, data, size, code: on_event(_string(uuid), code, ctypes.string_at(data, size))),
            _LOG_CALLBACK(lambda data, size: on_log(ctypes.string_at(data, size))),
        )

    def run(self, uuid: bytes, store: str, session_name: str, proxy_url: str | None) -> str:
        """Start a client and stay with it until it ends; returns the reason, empty after a stop.

        Must be called inside `gate.change()` of another thread, on a thread of its own. The device name is global in
        the library and read during the handshake, so the caller keeps the change until the client gave a sign of life.
        """
        on_qr, on_status, on_event, on_log = self._callbacks
        props = companion.DeviceProps(os=session_name, platformType=companion.DeviceProps.CHROME).SerializeToString()
        proxy = ctypes.byref(_Proxy(address=proxy_url.encode())) if proxy_url else None
        self.names_given += 1
        reason: bytes = self._go.Neonize(
            store.encode(), uuid, b"", 0, 0, b"WARN", on_qr, on_status, on_event, on_log,
            SUBSCRIBED, len(SUBSCRIBED), props, len(props), b"", 0, proxy,
        )  # fmt: skip
        return reason.decode(errors="replace")

    def stop(self, change: Change, uuid: bytes) -> None:
        """Take a client out of the library's maps. Only for one whose pump runs or whose thread has returned."""
        del change  # held by the caller: the proof that this is the only change
        self._go.Stop(uuid)

    def disconnect(self, uuid: bytes) -> None:
        """Close the client's connection and keep it from reconnecting; its pump goes on."""
        with self.gate.call():
            self._go.Disconnect(uuid)

    def me(self, uuid: bytes) -> Any:
        """The client's own account, a glue.Device."""
        with self.gate.call():
            return glue.Device.FromString(self._go.GetMe(uuid))

    def phone_jid(self, uuid: bytes, lid: Any) -> Any | None:
        """The phone-number address behind a hidden one, if the store knows it: a glue.JID."""
        return self._other_jid(self._go.GetPNFromLID, uuid, lid)

    def hidden_jid(self, uuid: bytes, phone: Any) -> Any | None:
        """The hidden address of a phone number, if the store knows it: a glue.JID."""
        return self._other_jid(self._go.GetLIDFromPN, uuid, phone)

    def contact(self, uuid: bytes, person: Any) -> Any:
        """What the store knows of a person (a glue.JID): a glue.ContactInfo, all empty if that is nothing."""
        data = person.SerializeToString()
        with self.gate.call():
            raw = self._go.GetContact(uuid, data, len(data))
        return glue.ContactsGetContactReturnFunction.FromString(raw).ContactInfo

    def group_subject(self, uuid: bytes, group: Any) -> str:
        """Ask WhatsApp for a group's subject; empty if it does not say. Takes up to 75 s when it does not answer."""
        data = group.SerializeToString()
        with self.gate.call():
            raw = self._go.GetGroupInfo(uuid, data, len(data))
        return str(glue.GetGroupInfoReturnFunction.FromString(raw).GroupInfo.GroupName.Name)

    def _other_jid(self, function: Any, uuid: bytes, jid: Any) -> Any | None:
        data = jid.SerializeToString()
        with self.gate.call():
            answer = glue.GetJIDFromStoreReturnFunction.FromString(function(uuid, data, len(data)))
        return answer.Jid if answer.Jid.User and not answer.Error else None

    def send(self, uuid: bytes, to: Any, message: Any) -> tuple[str, int]:
        """Send; returns WhatsApp's id and its time in ms. Raises SendError with the library's words."""
        jid, data = to.SerializeToString(), message.SerializeToString()
        with self.gate.call():
            raw = self._go.SendMessage(uuid, jid, len(jid), data, len(data))
        answer = glue.SendMessageReturnFunction.FromString(raw)
        if answer.Error:
            raise SendError(answer.Error)
        return answer.SendResponse.ID, answer.SendResponse.Timestamp * 1000

    def show_typing(self, uuid: bytes, to: Any) -> None:
        """Show the other side that a text is being written."""
        jid = to.SerializeToString()
        with self.gate.call():
            _refuse(self._go.SendChatPresence(uuid, jid, len(jid), 0, 0).decode(errors="replace"))

    def pair_phone(self, uuid: bytes, phone: str) -> str:
        """A pairing code for this number, `ABCD-1234`."""
        params = glue.PairPhoneParams(
            phone=phone, showPushNotification=True, clientType=1, clientDisplayName="Chrome (Linux)"
        ).SerializeToString()
        with self.gate.call():
            answer = glue.PairPhoneReturnFunction.FromString(self._go.PairPhone(uuid, params, len(params)))
        _refuse(answer.Error)
        return str(answer.Code)

    def logout(self, uuid: bytes) -> None:
        """Unlink the device at WhatsApp and delete its keys."""
        with self.gate.call():
            _refuse(self._go.Logout(uuid).decode(errors="replace"))

    def round_trip(self, uuid: bytes) -> str:
        """Ask WhatsApp's server something cheap (the list of blocked contacts); returns the error, empty if none."""
        with self.gate.call():
            return str(glue.GetBlocklistReturnFunction.FromString(self._go.GetBlocklist(uuid)).Error)


class SendError(Exception):
    """A send failed; the message is the library's."""


def _refuse(error: str) -> None:
    if error:
        raise EngineRefused(error)


def _string(pointer: int) -> bytes:
    return ctypes.string_at(pointer)


def _declared(go: Any) -> Any:
    """Say what the functions take and give, so that ctypes passes pointers whole and results are freed."""

    def take_string(pointer: int | None, *_: Any) -> bytes:
        if not pointer:
            return b""
        try:
            return ctypes.string_at(pointer)
        finally:
            go.FreeString(pointer)

    def take_bytes(pointer: Any, *_: Any) -> bytes:
        if not pointer:
            return b""
        try:
            found = pointer.contents
            return ctypes.string_at(found.data, found.size) if found.data and found.size else b""
        finally:
            go.FreeBytesStruct(pointer)

    text, size = ctypes.c_char_p, ctypes.c_int
    go.GetVersion.restype = ctypes.c_char_p
    go.FreeString.argtypes, go.FreeString.restype = [ctypes.c_void_p], None
    go.FreeBytesStruct.argtypes, go.FreeBytesStruct.restype = [ctypes.POINTER(_Bytes)], None
    go.Disconnect.argtypes, go.Disconnect.restype = [text], None
    go.Stop.argtypes, go.Stop.restype = [text], None
    start = [text, text, text, size, size, text, _STRING_CALLBACK, _STRING_CALLBACK, _EVENT_CALLBACK, _LOG_CALLBACK]
    start += [text, size, text, size, text, size, ctypes.POINTER(_Proxy)]
    strings = {"Neonize": start, "Logout": [text], "SendChatPresence": [text, text, size, size, size]}
    buffers = {
        "GetMe": [text],
        "GetPNFromLID": [text, text, size],
        "GetLIDFromPN": [text, text, size],
        "GetContact": [text, text, size],
        "GetGroupInfo": [text, text, size],
        "GetBlocklist": [text],
        "PairPhone": [text, text, size],
        "SendMessage": [text, text, size, text, size],
    }
    for name, arguments in strings.items():
        function = getattr(go, name)
        function.argtypes, function.restype, function.errcheck = arguments, ctypes.c_void_p, take_string
    for name, arguments in buffers.items():
        function = getattr(go, name)
        function.argtypes, function.restype, function.errcheck = arguments, ctypes.POINTER(_Bytes), take_bytes
    return go
