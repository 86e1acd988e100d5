"""What is held for visitors: the last so many, whoever puts and gets at once."""

from concurrent.futures import ThreadPoolExecutor

from lpr_lab.dashboard.server.recent import Recent


def test_the_one_used_longest_ago_is_the_first_to_go():
    held: Recent[str, int] = Recent(most=2)
    held.put("a", 1)
    held.put("b", 2)
    assert held.get("a") == 1
    held.put("c", 3)
    assert (held.get("a"), held.get("b"), held.get("c")) == (1, None, 3)
    held.put("a", 4)  # in place of the earlier one, and used last now
    held.put("d", 5)
    assert dict(held.items()) == {"a": 4, "d": 5}


def test_what_is_dropped_is_gone_and_every_put_is_counted():
    held: Recent[tuple[str, int], int] = Recent(most=9)
    for number in range(4):
        held.put(("even" if number % 2 == 0 else "odd", number), number)
    held.drop(lambda key: key[0] == "odd")
    assert [value for _, value in held.items()] == [0, 2] and held.puts == 4


def test_many_visitors_at_once_lose_nothing_but_what_is_too_much():
    held: Recent[int, int] = Recent(most=50)

    def visit(number: int) -> bool:
        held.put(number, number)
        return held.get(number) in (number, None)

    with ThreadPoolExecutor(8) as visitors:
        assert all(visitors.map(visit, range(2000)))
    assert len(held.items()) == 50 and held.puts == 2000
