"""W13: no credential in any body, URL log, metric, history row or log line; only in its own header, to its own URL."""

import logging

import msgspec
import pytest
import structlog
from prometheus_client import generate_latest

from tests.integration.callbacks.harness import (
    Account,
    Instance,
    event,
    eventually,
    make_account,
    make_instance,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import history
from tomada.postgres.pool import Pool


async def test_w13_credentials_stay_in_their_header(
    pool: Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The instance's token is in z-api-token and nowhere else; the signing secret is nowhere at all.

    Over deliveries, refusals, hangs, a disabled URL and a blocked one; in requests, rows, logs, metrics, and in what
    /v1 shows.
    """
    caplog.set_level(logging.DEBUG)
    account = await make_account(pool)
    urls = [receiver.url(path) for path in ("ok", "gone", "status-500", "close", "hang")] + ["http://169.254.169.254/x"]
    instances = [await make_instance(pool, account, url) for url in urls]
    with structlog.testing.capture_logs() as logs:
        async with running(pool, total_s=2.0) as rig:
            await rig.recorder.record([event(i, n) for n in range(3) for i in instances])
            tried = "select count(distinct instance_id) = $1 from attempt"
            await eventually(lambda: pool.fetchval(tried, len(instances)))
            shown = "".join([await _shown(pool, account, instance) for instance in instances])
            metrics = generate_latest(rig.registry).decode()
    secret = account.secret.removeprefix("whsec_")
    canaries = [secret, *(i.token for i in instances)]
    assert {r["target"].split("/")[1] for r in receiver.requests()} == {"ok", "gone", "status-500", "close", "hang"}
    for request in receiver.requests():
        token = request["headers"].pop("z-api-token")
        assert token in canaries
        assert not any(canary in str(request) for canary in canaries)
    tables = ("event", "lane", "callback", "attempt", "dead_letter")
    rows = [str(list(row.values())) for table in tables for row in await pool.fetch(f"select * from {table}")]
    assert rows
    for part in ("timed out", "410 gone", "status 500", "169.254.169.254", '"key":"2"'):
        assert part in shown
    output = capsys.readouterr()
    for place in (str(rows), shown, str(logs), caplog.text, metrics, output.out, output.err):
        assert not any(canary in place for canary in canaries)


async def _shown(pool: Pool, account: Account, instance: Instance) -> str:
    """All that /v1 shows of an instance's callbacks, as it goes out."""
    page = await history.history(pool, account.id, instance.id)
    assert len(page.content) >= 3
    parts = [
        page,
        [await history.attempts(pool, account.id, event.id) for event in page.content],
        await history.lanes(pool, account.id, instance.id),
        await history.dead_letters(pool, account.id, instance.id),
    ]
    return msgspec.json.encode(parts).decode()
