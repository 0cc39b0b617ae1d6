"""GET /instances: paging, searching, and what one item shows."""

from tests.integration.wire.conftest import Wire


async def test_pages(wire: Wire) -> None:
    """Walking the pages until page >= totalPage sees every instance once, oldest first."""
    account = await wire.account()
    for number in range(7):
        await wire.instance(account, name=f"Loja {number}")
    names, page = [], 0
    while True:
        page += 1
        shown = (await wire.partner(account).call("GET", f"/instances?page={page}&pageSize=3")).json()
        assert (shown["total"], shown["totalPage"], shown["pageSize"], shown["page"]) == (7, 3, 3, page)
        names += [item["name"] for item in shown["content"]]
        if page >= shown["totalPage"]:
            break
    assert names == [f"Loja {number}" for number in range(7)]
    beyond = (await wire.partner(account).call("GET", "/instances?page=99&pageSize=3")).json()
    assert (beyond["total"], beyond["content"]) == (7, [])


async def test_defaults_and_bounds(wire: Wire) -> None:
    """Without a query page 1 of 20; sizes and pages out of range are brought into it."""
    account = await wire.account()
    empty = (await wire.partner(account).call("GET", "/instances")).json()
    assert empty == {"total": 0, "totalPage": 0, "pageSize": 20, "page": 1, "content": []}
    shown = (await wire.partner(account).call("GET", "/instances?page=0&pageSize=99999")).json()
    assert (shown["page"], shown["pageSize"]) == (1, 1000)


async def test_query(wire: Wire) -> None:
    """`query` finds part of a name in any case, or a whole id; `middleware` the kind; wildcards mean themselves."""
    account = await wire.account()
    first = await wire.instance(account, name="Padaria São João")
    await wire.instance(account, name="100%_oficina", isDevice=True)
    partner = wire.partner(account)

    async def names(query: str) -> list[str]:
        return [item["name"] for item in (await partner.call("GET", f"/instances?{query}")).json()["content"]]

    assert await names("query=padaria") == ["Padaria São João"]
    assert await names("query=%25_") == ["100%_oficina"]
    assert await names("query=%25") == ["100%_oficina"]
    assert await names(f"query={first.split('/')[2].lower()}") == ["Padaria São João"]
    assert await names("query=nobody") == []
    assert await names("middleware=mobile") == ["100%_oficina"]
    assert await names("middleware=web") == ["Padaria São João"]


async def test_item(wire: Wire) -> None:
    """An item shows id, token, tenant, state and URLs as clients type them."""
    account = await wire.account()
    path = await wire.instance(account, receivedCallbackUrl="https://hooks.example.com.br/in")
    instance_id, token = path.split("/")[2], path.split("/")[4]
    await wire.pool.execute("insert into session (instance_id, condition) values ($1, 'connected')", instance_id)
    (item,) = (await wire.partner(account).call("GET", "/instances")).json()["content"]
    assert (item["id"], item["token"], item["tenant"]) == (instance_id, token, account.id)
    assert item["receivedCallbackUrl"] == "https://hooks.example.com.br/in"
    assert item["deliveryCallbackUrl"] is None
    assert (item["phoneConnected"], item["whatsappConnected"], item["middleware"]) == (True, True, "web")
    assert item["paymentStatus"] == "TRIAL"
    assert isinstance(item["due"], int)


async def test_accounts_do_not_see_each_other(wire: Wire) -> None:
    """A list holds the caller's own instances only, and none that are deleted."""
    mine, theirs = await wire.account(), await wire.account()
    path = await wire.instance(mine)
    foreign = await wire.instance(theirs)
    shown = (await wire.partner(mine).call("GET", f"/instances?query={foreign.split('/')[2]}")).json()
    assert shown["total"] == 0
    await wire.pool.execute("update instance set state = 'deleted' where id = $1", path.split("/")[2])
    assert (await wire.partner(mine).call("GET", "/instances")).json()["total"] == 0
