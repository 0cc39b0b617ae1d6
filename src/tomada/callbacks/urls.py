"""The check of a callback URL when it is saved, updated or tested, told in the product's own error."""

from tomada.errors import BadAddress
from tomada.kit import addresses
from tomada.kit.addresses import AddressRefused, AddressRules


def check_url(url: str, rules: AddressRules) -> None:
    """Raises BadAddress, with the reason in words for a person, unless `url` may be called (kit/addresses.py)."""
    try:
        addresses.check_url(url, rules)
    except AddressRefused as error:
        raise BadAddress(str(error)) from None
