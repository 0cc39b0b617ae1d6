"""Nothing is left behind: no process, no port, no temporary file, whether we are asked to stop or killed."""

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from tests.acceptance.processes import family_of, listening, of_each
from tests.acceptance.product import Product, wait_for


def socket_dir(product: Product) -> Path:
    """Where its PostgreSQL listens."""
    dsn = (product.data / "database.address").read_text()
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def segments_of(family: list[psutil.Process]) -> set[str]:
    """System V segments made by these processes, which a killed PostgreSQL could leave."""
    pids = {process.pid for process in family}
    segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {segment[1] for segment in segments if int(segment[4]) in pids}


def memory_files_of(family: list[psutil.Process]) -> set[Path]:
    """The files in /dev/shm that these processes have in their memory: PostgreSQL's other kind of shared memory."""
    maps = of_each(family, lambda process: Path(f"/proc/{process.pid}/maps").read_text().splitlines())
    return {Path(line.split(maxsplit=5)[5]) for lines in maps.values() for line in lines if " /dev/shm/" in line}


def product_with_temporary_directory(tmp_path: Path) -> tuple[Product, Path]:
    """A product that has a temporary directory of its own, so that everything in it is the product's."""
    tmp_path.chmod(0o755)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    return Product(tmp_path / "data", {"TMPDIR": str(temporary)}), temporary


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [Product.stop, Product.kill], ids=["SIGTERM", "SIGKILL"])
def test_nothing_is_left(tmp_path: Path, how: Callable[[Product], object]) -> None:
    """With a paired session, one in mid-pairing and a queue, all of it ends with the main process, within seconds."""
    product, temporary = product_with_temporary_directory(tmp_path)
    product.start()
    sockets = socket_dir(product)
    account = product.create_account()
    account.create_instance().pair(product.phone("5511999990011", "Shop"))
    pairing = account.create_instance()
    assert pairing.get("qr-code").status == 200
    pairing.send_text("5511999990011", "waits")
    family = family_of(product)
    ports = {port for _, port in listening(family)}
    assert len(family) >= 3  # PostgreSQL, a machine, the sandbox

    status = how(product)

    assert status in (0, None)
    wait_for("all processes gone", lambda: not [one for one in family if one.is_running()], 15)
    assert not [port for port in {product.port, *ports} if listens(port)]
    if how is Product.stop:
        assert list(temporary.iterdir()) == []
        assert not sockets.exists()
        assert not (product.data / "database.address").exists()


def test_what_a_kill_leaves_is_gone_after_the_next_stop(tmp_path: Path) -> None:
    """A killed server's sockets, files and memory are cleared by the start after it, at the latest by its stop."""
    product, temporary = product_with_temporary_directory(tmp_path)
    product.start()
    sockets = socket_dir(product)
    family = family_of(product)
    segments, files = segments_of(family), memory_files_of(family)
    assert segments
    assert files
    product.kill()

    product.start()
    family += family_of(product)
    files |= memory_files_of(family)
    assert product.stop() == 0

    assert list(temporary.iterdir()) == []
    assert not sockets.exists()
    assert not segments_of(family)
    assert not [file for file in files if file.exists()]
