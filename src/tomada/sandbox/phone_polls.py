"""Votes in polls: encrypted under a secret that only the poll's own message carries.

So only who has the poll can read the votes, and a vote names the voter inside its encryption. Facts: the key is HKDF of
the poll's secret under poll id, author, voter and "Poll Vote"; AES-GCM with poll id, zero byte and voter as associated
data; options travel as SHA-256 of their text. Author and voter are account addresses without device.
"""

import hashlib
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tomada.sandbox import protos
from tomada.sandbox.curve import hkdf
from tomada.sandbox.node import Jid
from tomada.sandbox.phone_reading import content_field, unwrap


def options_of(message: Any) -> list[str]:
    """The options of a poll; empty if the message is none."""
    plain, _ = unwrap(message)
    part: Any = getattr(plain, content_field(plain), None)
    return [option.optionName for option in part.options] if hasattr(part, "selectableOptionsCount") else []


def seal_vote(poll: Any, poll_id: str, author: Jid, voter: Jid, options: list[str], nonce: bytes) -> Any:
    """The encrypted vote, a `PollEncValue`."""
    chosen = protos.e2e.PollVoteMessage(selectedOptions=[_digest(option) for option in options])
    key, about = _key(poll, poll_id, author, voter)
    sealed = AESGCM(key).encrypt(nonce, chosen.SerializeToString(), about)
    return protos.e2e.PollEncValue(encPayload=sealed, encIV=nonce)


def open_vote(poll: Any, poll_id: str, author: Jid, voter: Jid, vote: Any) -> list[str] | None:
    """The chosen options; None if the vote does not belong to this poll and voter."""
    key, about = _key(poll, poll_id, author, voter)
    try:
        content = AESGCM(key).decrypt(vote.encIV, vote.encPayload, about)
    except (InvalidTag, ValueError):
        return None
    chosen = set(protos.e2e.PollVoteMessage.FromString(content).selectedOptions)
    return [option for option in options_of(poll) if _digest(option) in chosen]


def _key(poll: Any, poll_id: str, author: Jid, voter: Jid) -> tuple[bytes, bytes]:
    about = f"{poll_id}{author}{voter}Poll Vote".encode()
    return hkdf(poll.messageContextInfo.messageSecret, 32, info=about), f"{poll_id}\0{voter}".encode()


def _digest(option: str) -> bytes:
    return hashlib.sha256(option.encode()).digest()
