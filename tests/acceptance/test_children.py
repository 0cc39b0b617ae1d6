"""Every child has a supervisor and a chosen environment: the sandbox's process, too."""

from pathlib import Path

import psutil

from tests.acceptance.hooks import Hooks
from tests.acceptance.processes import family_of, of_each
from tests.acceptance.product import Product, http, running, wait_for

SECRETS = {
    "TOMADA_OPERATOR_TOKEN": "operator-token-that-no-child-may-see",
    "TOMADA_BOOTSTRAP_PARTNER_TOKEN": "partner-token-that-no-child-may-see",
    "PGPASSWORD": "password-that-no-child-may-see",
}


def sandbox_of(product: Product) -> psutil.Process | None:
    """Its process, if there is one."""
    family = family_of(product)
    lines = of_each(family, lambda child: child.cmdline())
    return next((one for one in family if "tomada.sandbox" in lines.get(one.pid, [])), None)


def _settings(environ: bytes) -> list[bytes]:
    names = [entry.partition(b"=")[0] for entry in environ.split(b"\0")]
    return [name for name in names if name.startswith(b"TOMADA_") and name != b"TOMADA_MACHINE_STORE"]


def test_no_child_inherits_a_secret(tmp_path: Path) -> None:
    """Sandbox, machines, PostgreSQL: none has a token, a password or a setting of ours in its environment.

    But for the address of the machines' own session store.
    """
    with running(tmp_path / "data", SECRETS) as product:
        seen = of_each(family_of(product), lambda child: Path(f"/proc/{child.pid}/environ").read_bytes())

    assert len(seen) >= 3
    assert not [pid for pid, environ in seen.items() if b"no-child-may-see" in environ or _settings(environ)]


def test_a_killed_sandbox_comes_back_as_it_was(tmp_path: Path, hooks: Hooks) -> None:
    """On the same ports, with the same keys and phones: sessions connect again and messages flow, without a new QR."""
    with running(tmp_path / "data") as product:
        instance = product.create_account().create_instance(hooks.url("sandbox-killed"))
        instance.pair(product.phone("5511999990095", "Shop"))
        customer = product.phone("5511977770095", "Customer")
        before = sandbox_of(product)
        assert before is not None
        before.kill()
        before.wait(10)

        wait_for("another sandbox", lambda: (now := sandbox_of(product)) is not None and now.pid != before.pid)
        url = f"{product.base}/sandbox/phones/5511977770095"
        wait_for("its routes", lambda: http("GET", url).status == 200)
        instance.wait_connected(60)
        customer.send_text("5511999990095", "after the kill")
        hooks.wait_text("sandbox-killed", "after the kill")
