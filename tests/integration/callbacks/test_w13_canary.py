"""W13: no credential in any body, URL log, metric, history row or log line; only in its own header, to its own URL."""

import logging

import pytest
import structlog
from prometheus_client import generate_latest

from tests.integration.callbacks.harness import event, make_account, make_instance, running
from tests.receiver import Receiver
from tomada.callbacks import history
from tomada.postgres.pool import Pool


async def test_w13_credentials_stay_in_their_header(
    pool: Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The instance's token is in z-api-token and nowhere else; the signing secret is nowhere at all.

    Over deliveries, refusals, hangs, a disabled URL and a blocked one; in requests, rows, logs and metrics.
    """
    caplog.set_level(logging.DEBUG)
    account = await make_account(pool)
    urls = [receiver.url(path) for path in ("ok", "gone", "status-500", "close")] + ["http://169.254.169.254/x"]
    instances = [await make_instance(pool, account, url) for url in urls]
    with structlog.testing.capture_logs() as logs:
        async with running(pool) as rig:
            await rig.recorder.record([event(i, n) for n in range(3) for i in instances])
            await receiver.wait_for(6)
            for instance in instances:
                await history.history(pool, account.id, instance.id)
            metrics = generate_latest(rig.registry).decode()
    secret = account.secret.removeprefix("whsec_")
    canaries = [secret, *(i.token for i in instances)]
    for request in receiver.requests():
        token = request["headers"].pop("z-api-token")
        assert token in canaries
        assert not any(canary in str(request) for canary in canaries)
    tables = ("event", "lane", "callback", "attempt", "dead_letter")
    rows = [str(list(row.values())) for table in tables for row in await pool.fetch(f"select * from {table}")]
    assert rows
    output = capsys.readouterr()
    for place in (str(rows), str(logs), caplog.text, metrics, output.out, output.err):
        assert not any(canary in place for canary in canaries)
