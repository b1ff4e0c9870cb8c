import pytest

from profiles.cart import Cart


def test_additions_are_equal_parts_of_the_target_and_the_last_is_what_is_missing() -> None:
    cart, quantities = Cart(target=14, largest=15), []
    for number in range(3):
        quantities.append(cart.quantity_to_add())
        cart.added(f"p{number}", quantities[-1], {**cart.lines, f"p{number}": quantities[-1]})
    assert quantities == [5, 5, 4]
    assert cart.holds_target


@pytest.mark.parametrize("target", range(1, 31))
def test_a_changed_cart_stays_between_its_target_and_the_largest(target: int) -> None:
    for largest in (target, target + 1, target + 7):
        for step in range(40):
            cart = Cart(target, largest)
            cart.lines = {"a": target - target // 2, **({"b": target // 2} if target > 1 else {})}
            sku, quantity = cart.change(step / 40)
            changed = quantity != cart.lines[sku]
            cart.changed(sku, quantity, {**cart.lines, sku: quantity})
            assert target <= cart.units <= largest
            assert changed == (largest > target)
            assert not cart.foreign


def test_an_empty_cart_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="an empty cart has no line to change"):
        Cart(1, 1).change(0.5)


def test_more_than_the_session_added_is_foreign_until_the_cart_is_emptied() -> None:
    cart = Cart(4, 4)
    cart.added("a", 2, {"a": 2, "old": 1})
    assert cart.foreign
    cart.emptied()
    assert not cart.foreign and cart.units == 0
    cart.added("a", 2, {"a": 5})
    assert cart.foreign


def test_the_mini_cart_shows_what_is_foreign_and_what_is_gone() -> None:
    cart = Cart(4, 4)
    cart.saw_units(3)
    assert cart.foreign
    cart.emptied()
    cart.added("a", 2, {"a": 2})
    cart.saw_units(2)
    assert not cart.foreign and cart.lines == {"a": 2}
    cart.saw_units(0)
    assert cart.lines == {}


def test_the_shop_is_believed_when_it_has_less() -> None:
    cart = Cart(4, 4)
    cart.added("a", 2, {"a": 1})
    assert cart.lines == {"a": 1} and not cart.foreign
