"""Connections that have not said hello: so many, and the one that has waited for longest goes."""

from __future__ import annotations

from tests.unit.signal_node.sockets import Browser, Notes, StillLoop, new_clients


def test_of_too_many_that_say_nothing_the_first_one_goes() -> None:
    loop, notes = StillLoop(), Notes()
    clients = notes.clients = new_clients(loop, max_strangers=2)
    first, second = Browser(clients, notes, loop), Browser(clients, notes, loop)
    clients.strangers.known(first.connection)
    third = Browser(clients, notes, loop)
    assert clients.strangers.dropped == 0, "who has said hello does not count"
    fourth = Browser(clients, notes, loop, open=False)
    assert [one.pipe.aborted for one in (first, second, third, fourth)] == [False, True, False, False]
    second.drop()
    assert len(clients.strangers) == 2
    third.drop()
    assert (len(clients.strangers), clients.strangers.dropped) == (1, 1)
