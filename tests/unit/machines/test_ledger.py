"""What may be acknowledged, and when."""

from random import Random  # noqa: TID251 - seeded

from tomada.machines.ledger import Ledger


def test_nothing_is_acknowledged_past_a_gap() -> None:
    """A number is acknowledged only when all told before it are done, and then all at once."""
    ledger = Ledger()
    for number in (5, 6, 9):
        assert ledger.told(number)

    assert ledger.done(6) is None
    assert ledger.done(9) is None
    assert ledger.done(5) == 9
    assert len(ledger) == 0


def test_a_new_machine_tells_again_what_is_under_way() -> None:
    """Work that runs since an earlier life of the machine is not queued twice, and is acknowledged to the new one."""
    ledger = Ledger()
    assert ledger.told(1)
    assert ledger.told(2)
    assert ledger.done(1) == 1
    ledger.machine_started()

    assert not ledger.told(1, again=True)  # the acknowledgement was lost with the old process
    assert not ledger.told(2, again=True)
    assert ledger.to_acknowledge() == 1
    assert ledger.done(2) == 2


def test_what_is_done_stays_done_for_a_new_machine() -> None:
    """Behind one that was not done nothing was acknowledged; the new process is told as soon as it asks."""
    ledger = Ledger()
    for number in (1, 2, 3):
        assert ledger.told(number)
    assert ledger.done(2) is None
    ledger.machine_started()

    assert [ledger.told(number, again=True) for number in (1, 2, 3)] == [False, False, False]
    assert ledger.done(1) == 2
    ledger.machine_started()
    assert [ledger.told(number, again=True) for number in (1, 2, 3)] == [False, False, False]
    assert ledger.to_acknowledge() == 2
    assert len(ledger) == 1


def test_what_is_new_is_work_whatever_its_number() -> None:
    """A journal that somebody removed may begin with smaller numbers than those that are done."""
    ledger = Ledger()
    ledger.told(5)
    assert ledger.done(5) == 5
    ledger.machine_started()

    assert ledger.told(3)
    assert ledger.done(3) == 3


def test_what_the_old_machine_told_is_not_acknowledged_to_the_new_one() -> None:
    """The end of old work says nothing to a process that has not told it."""
    ledger = Ledger()
    ledger.told(1)
    ledger.machine_started()

    assert ledger.done(1) is None


def test_any_order_of_ends_acknowledges_everything_in_the_end() -> None:
    """Random orders: acknowledgements grow, never run ahead, and reach the last number."""
    for seed in range(100):
        rng, ledger, numbers = Random(seed), Ledger(), list(range(1, 40))
        for number in numbers:
            ledger.told(number)
        finished: set[int] = set()
        last = 0
        for number in rng.sample(numbers, len(numbers)):
            finished.add(number)
            up_to = ledger.done(number)
            if up_to is not None:
                assert up_to > last
                assert finished.issuperset(range(1, up_to + 1))
                last = up_to
        assert last == 39
