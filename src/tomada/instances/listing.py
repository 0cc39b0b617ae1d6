"""Pages of an account's instances."""

from tomada.instances.create import sealing_context
from tomada.instances.model import Listed, Page
from tomada.instances.store import InstanceStore
from tomada.kit.sealing import Sealer

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 1000
PAGE_MAX = 1_000_000


async def list_page(
    store: InstanceStore,
    sealer: Sealer,
    account_id: str,
    *,
    page: int,
    page_size: int,
    query: str | None,
    is_device: bool | None,
) -> Page:
    """Page `page` (from 1) of the instances whose name contains `query` or whose id it is; None = all.

    Both numbers must lie in 1..PAGE_MAX and 1..PAGE_SIZE_MAX; the caller clamps them.
    """
    total = await store.count(account_id, query, is_device)
    rows = await store.page(account_id, query, is_device, page_size, (page - 1) * page_size)
    content = [Listed(instance, sealer.open(sealed, sealing_context(instance.id))) for instance, sealed in rows]
    return Page(total, content)
