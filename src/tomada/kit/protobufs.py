"""WhatsApp's protobuf messages, as the machine program has them.

The schemas are part of the library that the machine is built from; the program prints them, so what we read and write
here can never be another version than what it sends, and we carry no copy of them. They are loaded once, when the first
class is asked for, into a pool of their own: other schemas of the same names in this process do no harm.
"""

import functools
import os
import threading
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

from tomada.kit import machine_program

_loading = threading.Lock()


class Package:
    """One of WhatsApp's packages: its messages and enumerations are attributes, as in a generated module."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        full_name = f"{self._name}.{name}"
        try:
            found: Any = message_class(full_name)
        except KeyError:
            try:
                found = EnumTypeWrapper(_schemas().FindEnumTypeByName(full_name))
            except KeyError:
                raise AttributeError(f"WhatsApp has no {full_name}") from None
        setattr(self, name, found)
        return found


def message_class(full_name: str) -> Any:
    """The class of a message, for example `WAWebProtobufsE2E.Message`; KeyError if there is none of that name."""
    return GetMessageClass(_schemas().FindMessageTypeByName(full_name))


def _schemas() -> DescriptorPool:
    with _loading:  # one pool: classes of two are strangers to each other
        return _load()


@functools.cache
def _load() -> DescriptorPool:
    program = machine_program.locate(os.environ)
    schemas = descriptor_pb2.FileDescriptorSet.FromString(machine_program.ask(program, "descriptors"))
    pool = DescriptorPool()
    for schema in schemas.file:  # imports come first
        pool.AddSerializedFile(schema.SerializeToString())
    return pool
