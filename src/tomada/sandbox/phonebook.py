"""All simulated phones of one sandbox: made on request, found again after a restart.

A phone's record lies in the network's store; `load` attaches every stored phone, so that what was paired yesterday
works today. Adding one is cheap (see `phone`), and adding it twice gives the same phone.
"""

import asyncio
from collections.abc import Callable

import msgspec

from tomada.kit.clock import Clock
from tomada.sandbox import phone_settings
from tomada.sandbox.network_ports import PhoneNetwork
from tomada.sandbox.phone import RECORD_KEY, Phone, PhoneRecord, new_record
from tomada.sandbox.phone_inbox import receive

NUMBER_DIGITS_MIN = 5
NUMBER_DIGITS_MAX = 20
NAME_CHARS_MAX = 200


class UnknownPhone(LookupError):
    """There is no simulated phone with this number; add it with POST /sandbox/phones"""


class BadNumber(ValueError):
    """A phone number is 5 to 20 digits, with the country code and without a plus sign"""


class Phonebook:
    """The phones by number."""

    def __init__(self, network: PhoneNetwork, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self.network = network
        self._clock = clock
        self._random_bytes = random_bytes
        self._phones: dict[str, Phone] = {}
        self._adding = asyncio.Lock()

    async def load(self) -> None:
        """Attach every phone that the store knows."""
        for number, data in self.network.blobs.owners(RECORD_KEY):
            await self._attach(number, msgspec.msgpack.decode(data, type=PhoneRecord))

    async def add(self, number: str, name: str) -> Phone:
        """The phone with this number, made if need be; a name other than it has renames it. `BadNumber`."""
        if not (number.isascii() and number.isdigit() and NUMBER_DIGITS_MIN <= len(number) <= NUMBER_DIGITS_MAX):
            raise BadNumber(BadNumber.__doc__)
        name = name.strip()[:NAME_CHARS_MAX]
        async with self._adding:
            known = self._phones.get(number)
            if known is None:
                record = new_record(name or f"Phone {number[-4:]}", self._random_bytes)
                self.network.blobs.put(number, RECORD_KEY, msgspec.msgpack.encode(record))
                return await self._attach(number, record)
        if name and name != known.name:
            await phone_settings.rename(known, name)
        return known

    def get(self, number: str) -> Phone:
        """The phone with this number (a leading `+` does not matter); `UnknownPhone`."""
        phone = self._phones.get(number.lstrip("+"))
        if phone is None:
            raise UnknownPhone(UnknownPhone.__doc__)
        return phone

    def all(self) -> list[Phone]:
        """All phones, in the order of their making."""
        return list(self._phones.values())

    async def _attach(self, number: str, record: PhoneRecord) -> Phone:
        phone = Phone(
            number,
            record,
            network=self.network,
            clock=self._clock,
            random_bytes=self._random_bytes,
            receive=receive,
        )
        self._phones[number] = phone
        await self.network.attach(phone)
        return phone
