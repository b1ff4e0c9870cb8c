"""The shopper's journeys: the requests of signing in and of each user action, and what is learned from each answer.

Pure. A journey is a generator: it yields the next `Step`, is sent the `Answer`, and tells the session what it learned.
What one page visit costs on average is stated in `scenario.visits`; a test holds the journeys to it.
"""

from collections.abc import Callable, Generator, Mapping

from profiles import shop
from profiles.answers import UNAUTHORIZED, Answer
from profiles.choice import Intent
from profiles.session import OpenOrder, Session, Visit

Journey = Generator[shop.Step, Answer, None]


def run(
    journey: Journey,
    send: Callable[[shop.Step], Answer],
    pause: Callable[[], None],
    time_is_over: Callable[[], bool],
) -> None:
    """Walks a journey: sends each step, with a pause between two, until its end or until the session's time is over."""
    walking = walk(journey, time_is_over)
    step = next(walking, None)
    while step is not None:
        answer = send(step)
        try:
            walking.send(answer)
            pause()
            step = next(walking, None)
        except StopIteration:
            return


def walk(journey: Journey, time_is_over: Callable[[], bool]) -> Generator[shop.Step | None, Answer | None, None]:
    """The walk of `run` for somebody who cannot wait for an answer: yields a step and is sent its answer, then yields
    None for the pause before the next one."""
    step = next(journey, None)
    while step is not None:
        if time_is_over() and not step.finishes:
            journey.close()
            return
        answer = yield step
        assert answer is not None
        try:
            step = journey.send(answer)
        except StopIteration:
            return
        yield None


def sign_in(session: Session, account: shop.Credentials, registered: bool) -> Journey:
    """Registers an account that this process has not registered yet, and logs in.

    A shop that does not know the account any more (401) is registered with again, once. One that has just said that
    it knows the account and refuses the login all the same has trouble: the login is tried again like any request.
    """
    known = False
    if not registered:
        known = (yield shop.register(account)).ok
    answer = yield shop.login(account, known)
    if registered and answer.meant_status == UNAUTHORIZED:
        known = (yield shop.register(account)).ok
        answer = yield shop.login(account, known)
    if answer.ok:
        session.user_id, session.token = answer.learned.user_id, answer.learned.token


def page_visit(session: Session, visit: Visit) -> Journey:
    """One page visit: its user action, then the mini-cart that every page of the shop shows."""
    yield from USER_ACTIONS[visit.user_action](session, visit)
    answer = yield shop.mini_cart()
    if answer.ok:
        session.cart.saw_units(answer.learned)


def browse(session: Session, visit: Visit) -> Journey:
    """Lists a category and opens products of it."""
    answer = yield shop.list_category(visit.product.category)
    if answer.ok:
        for product in visit.opens:
            yield shop.open_product(product.sku)


def search(session: Session, visit: Visit) -> Journey:
    """Searches for a product and perhaps opens it."""
    answer = yield shop.search(visit.query)
    if answer.ok:
        for product in visit.opens:
            yield shop.open_product(product.sku)


def cart(session: Session, visit: Visit) -> Journey:
    """Opens a product, adds it and views the cart; a cart that holds its target gets a quantity changed instead."""
    if session.cart.holds_target and not session.cart.foreign:
        yield from _change_cart(session, visit)
    else:
        yield from _fill_cart(session, visit)
    yield from _view_cart(session)


def order(session: Session, visit: Visit) -> Journey:
    """Views the cart, places the order, pays it and checks it. An abandoning shopper only starts the checkout.

    An order that could not be paid is paid now, before anything else is ordered.
    """
    if session.intent is not Intent.PURCHASE:
        yield from _view_cart(session)
        yield shop.me()
        return
    if session.open_order is None:
        yield from _place_order(session, visit)
    if session.open_order is not None:
        yield from _pay(session, session.open_order)


def profile(session: Session, visit: Visit) -> Journey:
    """Reads the account and its past orders."""
    yield shop.me()
    answer = yield shop.list_orders()
    if answer.ok:
        session.known_orders.update(seen.id for seen in answer.learned)


USER_ACTIONS: Mapping[str, Callable[[Session, Visit], Journey]] = {
    "browse": browse,
    "search": search,
    "cart": cart,
    "order": order,
    "profile": profile,
}


def _fill_cart(session: Session, visit: Visit) -> Journey:
    """Opens the visit's product and adds it. What an earlier session left in the cart goes out as soon as it shows."""
    if session.cart.foreign:
        yield from _empty_cart(session)
    answer = yield shop.open_product(visit.product.sku)
    if not answer.ok:
        return
    yield from _add(session, visit)
    if session.cart.foreign and (yield from _empty_cart(session)):
        session.cart_adds -= 1  # the first one went out with the rest
        yield from _add(session, visit)


def _add(session: Session, visit: Visit) -> Journey:
    quantity = session.cart.quantity_to_add()
    answer = yield shop.add_to_cart(visit.product, quantity, session.cart.lines)
    if answer.ok:
        session.cart.added(visit.product.sku, quantity, answer.learned.lines)
        session.cart_adds += 1


def _empty_cart(session: Session) -> Generator[shop.Step, Answer, bool]:
    answer = yield shop.empty_cart()
    if answer.ok:
        session.cart.emptied()
    return answer.ok


def _change_cart(session: Session, visit: Visit) -> Journey:
    sku, quantity = session.cart.change(visit.change_u)
    answer = yield shop.open_product(sku)
    if not answer.ok:
        return
    answer = yield shop.change_quantity(sku, quantity)
    if answer.ok:
        session.cart.changed(sku, quantity, answer.learned.lines)


def _view_cart(session: Session) -> Generator[shop.Step, Answer, shop.CartSeen | None]:
    answer = yield shop.view_cart()
    if not answer.ok:
        return None
    session.cart.saw(answer.learned.lines)
    seen: shop.CartSeen = answer.learned
    return seen


def _place_order(session: Session, visit: Visit) -> Journey:
    """Orders the cart, which the shop must have shown to hold the session's own things and nothing else."""
    if session.cart.foreign or not session.cart.lines:
        yield from _fill_cart(session, visit)
    seen = yield from _view_cart(session)
    if seen is None or session.cart.foreign or not session.cart.lines:
        return
    notes = f"{session.reference}-{visit.page}"
    answer = yield shop.place_order(visit.address, notes, seen, session.known_orders)
    if answer.ok:
        placed: shop.OrderSeen = answer.learned
        session.placed(OpenOrder(placed.id, placed.amount, placed.payment_id))


def _pay(session: Session, open_order: OpenOrder) -> Journey:
    assert session.user_id is not None  # nobody orders without having signed in
    answer = yield shop.pay(open_order.id, open_order.amount, open_order.payment_id, session.user_id)
    if answer.ok and answer.learned.went_through:
        session.paid()
    yield shop.view_order(open_order.id)
