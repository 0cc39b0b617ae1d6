"""A session's own proxy: all of that session goes through it, and one that is not there refuses the opening."""

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import machine
from tomada.engine import port
from tomada.engine.environment import ENGINE_ENVIRONMENT


async def test_own_proxy(bench: Bench) -> None:
    """Without any proxy in the environment the session reaches WhatsApp through its own, with credentials."""
    ready = bench.ready
    launcher = ("-m", "tomada.sandbox.machine", "--noise-root", ready.noise_root, "--")
    no_proxy = {"HTTPS_PROXY": "", "https_proxy": "", "SSL_CERT_FILE": ready.ca_bundle}
    environment = no_proxy | ENGINE_ENVIRONMENT
    async with machine(bench.folder / "proxied", launcher=launcher, environment=environment) as driven:
        proxy_url = ready.proxy.replace("http://", "http://tenant:secret@")
        answer = await driven.open("proxied", bench.store("proxied"), "Acme", proxy_url)
        assert answer.error is None
        await driven.event("proxied", port.QrIssued)
        answer = await driven.open("nowhere", bench.store("nowhere"), "Acme", "http://127.0.0.1:1")
        assert answer.error
        answer = await driven.open("odd", bench.store("odd"), "Acme", "gopher://127.0.0.1:1")
        assert answer.error
        assert b"secret" not in driven.log
        assert await driven.end() == 0
