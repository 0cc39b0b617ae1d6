"""Places: who may hold how many lanes."""

from tomada.callbacks.limits import Limits, Places

LIMITS = Limits(lanes_max=10, destination_max=8, destination_min=2, account_max=5)


def test_a_destination_without_answers_is_held_to_two_places_and_comes_back() -> None:
    """Halved by every attempt without a quick answer, one more for every answer."""
    places = Places(LIMITS)
    for _ in range(10):
        places.heard("x:443", None, 30.0)
    assert places.destination_room() == {"x:443": 2}
    places.heard("x:443", 200, 29.0)  # an answer that comes so late is no better than none
    assert places.destination_room() == {"x:443": 2}
    for _ in range(6):
        places.heard("x:443", 500, 0.1)
    assert places.destination_room() == {}


def test_places_are_given_back() -> None:
    """Room shrinks with each place held and grows again; nothing is remembered of those who hold none."""
    places = Places(LIMITS)
    for _ in range(5):
        places.enter("x:443", "a")
    assert (places.free, places.destination_room(), places.account_room()) == (5, {"x:443": 3}, {"a": 0})
    for _ in range(5):
        places.leave("x:443", "a")
    assert (places.free, places.destination_room(), places.account_room()) == (10, {}, {})
