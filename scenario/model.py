"""What a scenario is: frozen types, checked when they were loaded. Everything in them is nominal time.

A file's own shape is in `scenario.schema`; `scenario.load` turns one into the other. Mappings cannot be changed, and
they keep the order of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

USER_ACTIONS = ("browse", "search", "cart", "order", "profile")
"""What a shopper does in one page visit."""

SERVICES = ("user-service", "inventory-service", "cart-service", "order-service", "payment-service")
"""The services of the shop, in the order of the balancer contract."""

REWARD_COMPONENTS = ("response_time", "error_rate", "throughput", "load_balance", "user_satisfaction")

PACE: Mapping[str, float] = MappingProxyType(
    {"extreme": 0.25, "very_high": 0.5, "high": 0.75, "medium": 1.0, "medium_low": 1.25, "low": 1.5, "variable": 1.0}
)
"""Intensity -> pace f: pauses are multiplied by f, and a session makes pages / f visits in its unchanged length."""

FAULT_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "latency_factor": "latency",
        "error_rate": "errors",
        "timeout_rate": "timeouts",
        "capacity": "capacity",
        "antagonist": "antagonist",
        "crash": "crash",
    }
)
"""Condition of a file -> kind of fault, as injectors know it."""

LEVELS = ("very_low", "low", "medium", "high", "very_high", "extreme")
"""How much load or stress an author expects of a service, in rising order."""

PAYMENT_LIMIT = 100_000.0
"""The shop's payment service fails any payment above this amount, in the catalogue's currency."""


DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "data_collection_interval_seconds": 2.0,
        "window_seconds": 60.0,
        "episode_seconds": 300.0,
        "ramp_seconds": 30.0,
        "request_timeout_seconds": 10.0,
        "retry_attempts": 2,
        "retry_delay_seconds": 0.5,
        "reward_weights": MappingProxyType(
            dict(zip(REWARD_COMPONENTS, (0.3, 0.3, 0.1, 0.1, 0.2), strict=True)),
        ),
        "service_slo_ms": MappingProxyType(dict(zip(SERVICES, (250.0, 250.0, 300.0, 500.0, 600.0), strict=True))),
        "cart_size": (1, 3),
        "change_every_seconds": 120.0,
        "recovery_pause_minutes": 5.0,
        "background_requests_per_second": 1.0,
    }
)
"""Key -> value when a file leaves it out. Every one that is used is printed with the plan."""


class Frozen:
    """A dataclass whose mappings are read-only copies."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for one in fields(self):  # type: ignore[arg-type]
            value: Any = getattr(self, one.name)
            if isinstance(value, Mapping) and not isinstance(value, MappingProxyType):
                object.__setattr__(self, one.name, MappingProxyType(dict(value)))


@dataclass(frozen=True, slots=True)
class Product:
    """One article of the shop."""

    sku: str  # safe in a URL path
    name: str
    category: str
    brand: str
    price: float  # in the catalogue's currency, > 0
    weight: float  # > 0: how often shoppers take it, relative to the others


@dataclass(frozen=True, slots=True)
class Address:
    """A shipping address as the order service accepts it."""

    street: str
    city: str
    state: str
    zip_code: str  # 12345 or 12345-6789
    country: str
    phone: str | None


@dataclass(frozen=True, slots=True)
class Profile(Frozen):
    """One kind of shopper. Ranges are (smallest, largest), both included."""

    name: str
    description: str
    conversion_rate: float  # P(a session ends in a paid order)
    cart_abandonment_rate: float  # P(no order | cart), < 1
    session_duration_min: tuple[float, float]  # minutes
    pages: tuple[int, int]  # page visits of a session at intensity medium
    think_time_s: tuple[float, float]  # seconds between the requests of one page visit
    user_actions: Mapping[str, float]  # user action -> probability as listed; sums to 1
    cart_size: tuple[int, int]  # units in a cart

    @property
    def abandon_rate(self) -> float:
        """P(a session fills a cart and orders nothing) = c * a / (1 - a), so that P(no order | cart) = a."""
        return self.conversion_rate * self.cart_abandonment_rate / (1 - self.cart_abandonment_rate)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong inside a service for a while."""

    service: str
    kind: str  # a value of FAULT_KINDS
    value: float | None  # factor, rate or share; None for a crash
    instances: tuple[str, ...]  # empty: all instances of the service
    start_min: float  # minutes from the start of its phase
    duration_min: float  # minutes

    def __str__(self) -> str:
        """What it is, as it stands in the data.

        >>> str(Fault("cart-service", "latency", 5.0, (), 0.0, 10.0))
        'cart-service latency 5'
        """
        what = self.kind if self.value is None else f"{self.kind} {self.value:g}"
        where = f" ({', '.join(self.instances)})" if self.instances else ""
        return f"{self.service} {what}{where}"


@dataclass(frozen=True, slots=True)
class Chaos:
    """Random processes around a phase; 0 leaves something as it is. What they come to is drawn with the plan."""

    user_variance: float  # users wander within users x (1 +- this)
    think_time_variance: float  # the pace wanders within pace x (1 +- this)
    action_randomness: float  # share of the action weights that is drawn anew
    change_every_s: float  # nominal seconds between two changes


@dataclass(frozen=True, slots=True)
class Phase(Frozen):
    """One stretch of a scenario's timeline."""

    name: str
    description: str
    start_min: float  # minutes from the start of the scenario
    duration_min: float  # minutes
    intensity: str  # a key of PACE
    users: int
    distribution: Mapping[str, float]  # profile -> share of the users as listed; sums to 1
    weights: Mapping[str, float]  # user action -> weight, only those the file gives
    service_load_characteristics: Mapping[str, str]  # service -> level of requests that the author expects
    expected_service_stress: Mapping[str, str]  # service -> level of slowness and errors that the author expects
    ramp_s: float | None = None  # how long its users take to change at its start; None: the scenario's
    faults: tuple[Fault, ...] = ()  # in order of their start
    chaos: Chaos | None = None
    target_products: tuple[str, ...] = ()  # SKUs; the only ones of interest in this phase; empty: the whole catalogue

    @property
    def pace(self) -> float:
        return PACE[self.intensity]


@dataclass(frozen=True, slots=True)
class Scenario(Frozen):
    """One named timeline of a file with everything that is needed to run it. Times are nominal."""

    name: str
    description: str
    phases: tuple[Phase, ...]  # without gap or overlap, the first at minute 0
    profiles: Mapping[str, Profile]  # all profiles of the file
    catalogue: tuple[Product, ...]
    addresses: tuple[Address, ...]
    total_users: int  # accounts
    max_concurrent_users: int
    decision_interval_s: float
    window_s: float  # of the observation
    episode_s: float
    ramp_s: float  # how long the users take to change at the start of a phase that does not say
    request_timeout_s: float
    retry_attempts: int  # tries after the first one
    retry_delay_s: float  # before the first retry; doubles from then on
    recovery_pause_min: float  # minutes of rest after it when another scenario follows
    background_rps: float  # requests per nominal second during that rest
    base_url: str | None  # None: the target is named on the command line
    service_slo_ms: Mapping[str, float]  # service -> response time it should keep
    reward_weights: Mapping[str, float]  # reward component -> weight; sums to 1
    defaults: tuple[str, ...]  # what the file left out, with the value used: "window_seconds 60"
    rewards: Mapping[str, str] = field(default_factory=dict)  # component of the author's own -> module:attribute

    @property
    def duration_min(self) -> float:
        return sum(phase.duration_min for phase in self.phases)


def one_service(name: str) -> str | None:
    """The service that a name means, None for none.

    >>> [one_service(name) for name in ("cart-service", "cart_service", "cart", "checkout")]
    ['cart-service', 'cart-service', 'cart-service', None]
    """
    plain = name.replace("_", "-")
    found = plain if plain.endswith("-service") else f"{plain}-service"
    return found if found in SERVICES else None


def one_name(name: str) -> str:
    """The one name behind the singular and the plural of a profile's name.

    >>> [one_name(name) for name in ("careful_shoppers", "careful_shopper", "parties", "boss", "bosses")]
    ['careful_shopper', 'careful_shopper', 'party', 'boss', 'boss']
    """
    if len(name) > 4 and name.endswith("ies"):
        return name[:-3] + "y"
    if name.endswith(("sses", "xes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if len(name) > 2 and name.endswith("s") and name[-2] not in "sui" else name


def value_text(value: Any) -> str:
    """A setting's value as text: a number, a range, or names with numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item:g}" for key, item in value.items())
    return f"{value[0]}-{value[1]}" if isinstance(value, tuple) else f"{value:g}"
