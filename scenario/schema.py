"""The shape of a scenario file as types; `configs/schema.json` is generated from them.

Only shapes and the limits of single values are here. What concerns several values at once is in `scenario.checks`.
Descriptions are what an editor shows beside a key.
"""

import unicodedata
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from scenario.model import DEFAULTS, SERVICES, value_text

NAME = r"^[A-Za-z0-9_-]{1,64}$"
SKU = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ZIP_CODE = r"^[0-9]{5}(-[0-9]{4})?$"
PHONE = r"^\+?[1-9][0-9]{1,14}$"
REFERENCE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
BASE_URL = r"^https?://[A-Za-z0-9.\-:\[\]]+(/[A-Za-z0-9._~\-/]*)?$"

MOST_USERS = 1_000_000
MOST_MINUTES = 100_000.0
MOST_SECONDS = 1_000_000.0
WORST_LATENCY_FACTOR = 1000.0
MOST_ANTAGONIST = 0.95


def _printable(text: str) -> str:
    """Names and descriptions are printed on terminals and in reports: no escape sequences, no direction marks."""
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in "\n\t" for char in text):
        raise PydanticCustomError("control_characters", "control characters")
    if not text.strip():
        raise PydanticCustomError("blank", "blank")
    return text


def _given(value: Any) -> Any:
    """A key may be left out, but not be there with nothing behind it: then its author meant something."""
    if value is None:
        raise PydanticCustomError("empty", "empty")
    return value


T = TypeVar("T")
Maybe = Annotated[T | None, BeforeValidator(_given)]
"""A key that may be left out."""


def _or_else(description: str, key: str) -> str:
    """A description that says what holds when the key is left out."""
    return f"{description}; left out: {value_text(DEFAULTS[key])}"


def _slo(service: int) -> str:
    return f"Milliseconds; left out: {DEFAULTS['service_slo_ms'][SERVICES[service]]:g}"


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True), StringConstraints(max_length=2000), AfterValidator(_printable)]
Label = Annotated[str, Field(strict=True), StringConstraints(max_length=100), AfterValidator(_printable)]
Name = Annotated[str, Field(strict=True), StringConstraints(pattern=NAME)]
Probability = Annotated[Number, Field(ge=0, le=1)]
Weight = Annotated[Number, Field(ge=0, le=MOST_SECONDS)]
Minutes = Annotated[Number, Field(gt=0, le=MOST_MINUTES)]
Seconds = Annotated[Number, Field(gt=0, le=MOST_SECONDS)]
SecondsOrNone = Annotated[Number, Field(ge=0, le=MOST_SECONDS)]
Users = Annotated[Whole, Field(gt=0, le=MOST_USERS)]
Pages = Annotated[Whole, Field(gt=0, le=10_000)]
Units = Annotated[Whole, Field(gt=0, le=100)]
Milliseconds = Annotated[Number, Field(gt=0, le=MOST_SECONDS)]
Level = Literal["very_low", "low", "medium", "high", "very_high", "extreme"]
Share = Annotated[Number, Field(gt=0, le=1)]


class _Node(BaseModel):
    """A mapping of the file: only its own keys, never changed after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionProbabilities(_Node):
    """User action -> probability of a free page visit; a user action left out is never chosen. Sums to 1."""

    browse: Maybe[Probability] = Field(default=None, description="Lists a category and opens products")
    search: Maybe[Probability] = Field(default=None, description="Queries and opens a result")
    cart: Maybe[Probability] = Field(default=None, description="Opens a product, adds it and views the cart")
    order: Maybe[Probability] = Field(
        default=None, description="Views the cart, places the order, pays and checks the order"
    )
    profile: Maybe[Probability] = Field(
        default=None, description="Reads the account and past orders; left out: the phase's profile_weight decides"
    )


class ScenarioWeights(_Node):
    """How much a phase favours each user action; a weight left out is neutral (the mean of those given)."""

    browse_weight: Maybe[Weight] = Field(default=None, description="Multiplies the profiles' browse probability")
    search_weight: Maybe[Weight] = Field(default=None, description="Multiplies the profiles' search probability")
    cart_weight: Maybe[Weight] = Field(default=None, description="Multiplies the profiles' cart probability")
    order_weight: Maybe[Weight] = Field(default=None, description="Multiplies the profiles' order probability")
    profile_weight: Maybe[Weight] = Field(
        default=None, description="Its share of the weights is the share of profile visits; left out: none"
    )


class ServiceLevels(_Node):
    """Service -> response time it should keep, nominal milliseconds."""

    user_service: Maybe[Milliseconds] = Field(default=None, alias="user-service", description=_slo(0))
    inventory_service: Maybe[Milliseconds] = Field(default=None, alias="inventory-service", description=_slo(1))
    cart_service: Maybe[Milliseconds] = Field(default=None, alias="cart-service", description=_slo(2))
    order_service: Maybe[Milliseconds] = Field(default=None, alias="order-service", description=_slo(3))
    payment_service: Maybe[Milliseconds] = Field(default=None, alias="payment-service", description=_slo(4))


class RewardWeights(_Node):
    """Reward component -> weight in the weighted sum. Given at all, all five are given; with `rewards` sums to 1."""

    response_time: Probability = Field(description="1 - min(mean / SLO, 2) / 2")
    error_rate: Probability = Field(description="1 - failures / requests")
    throughput: Probability = Field(description="Answers against the requests expected")
    load_balance: Probability = Field(description="Jain's fairness index over the instances")
    user_satisfaction: Probability = Field(description="Apdex with T = SLO")


class OwnReward(_Node):
    """A component of the reward of one's own."""

    function: Annotated[str, Field(strict=True), StringConstraints(max_length=200, pattern=REFERENCE)] = Field(
        description="module:attribute of a function of the cohorts"
    )
    weight: Probability = Field(description="In the weighted sum; 0: only recorded")


class Conditions(_Node):
    """What goes wrong inside a service; at least one of them."""

    latency_factor: Maybe[Annotated[Number, Field(gt=1, le=WORST_LATENCY_FACTOR)]] = Field(
        default=None, description="Its work takes this many times as long"
    )
    error_rate: Maybe[Share] = Field(default=None, description="This part of its requests fails fast")
    timeout_rate: Maybe[Share] = Field(default=None, description="This part of its requests hangs until it times out")
    capacity: Maybe[Annotated[Number, Field(gt=0, lt=1)]] = Field(
        default=None, description="The part of its workers and CPU that is left"
    )
    antagonist: Maybe[Annotated[Number, Field(gt=0, le=MOST_ANTAGONIST)]] = Field(
        default=None, description="Somebody else takes this share of its CPU"
    )
    crash: Maybe[Literal[True]] = Field(default=None, description="true: it is down, and starts cold afterwards")
    instances: Maybe[Annotated[list[Name], Field(min_length=1)]] = Field(
        default=None, description="The instances it happens to, as the target calls them; left out: all of the service"
    )


class TimedConditions(Conditions):
    """What goes wrong inside a service for a part of its phase."""

    minute: Annotated[Number, Field(ge=0, le=MOST_MINUTES)] = Field(
        description="When it begins, minutes from the start of the phase"
    )
    duration_minutes: Minutes = Field(description="Minutes")
    service: Label = Field(description="Such as cart-service")


class ChaosNode(_Node):
    """Random processes around the phase, drawn from the seed; what was drawn is in the plan and in the data."""

    user_variance: Maybe[Annotated[Number, Field(ge=0, lt=1)]] = Field(
        default=None, description="Users wander within concurrent_users x (1 +- this)"
    )
    think_time_variance: Maybe[Annotated[Number, Field(ge=0, lt=1)]] = Field(
        default=None, description="All pauses wander within x (1 +- this)"
    )
    action_randomness: Maybe[Probability] = Field(
        default=None, description="The share of the scenario_weights that is drawn anew"
    )
    change_every_seconds: Maybe[Seconds] = Field(
        default=None, description=_or_else("Seconds between two changes", "change_every_seconds")
    )


class Settings(_Node):
    """What base_config states for all scenarios of the file and a scenario may state for itself."""

    test_duration_minutes: Maybe[Minutes] = Field(
        default=None, description="What the phases have to add up to, minutes"
    )
    total_users: Maybe[Users] = Field(default=None, description="Accounts; each has at most one live session")
    max_concurrent_users: Maybe[Users] = Field(default=None, description="No phase may have more users than this")
    data_collection_interval_seconds: Maybe[Seconds] = Field(
        default=None,
        description=_or_else(
            "The decision interval: each service's action is chosen once in it, seconds",
            "data_collection_interval_seconds",
        ),
    )
    window_seconds: Maybe[Seconds] = Field(
        default=None, description=_or_else("The window that an observation looks back on, seconds", "window_seconds")
    )
    episode_seconds: Maybe[Seconds] = Field(
        default=None, description=_or_else("An episode ends after at most this long, seconds", "episode_seconds")
    )
    ramp_seconds: Maybe[SecondsOrNone] = Field(
        default=None,
        description=_or_else("How long users take to change at the start of a phase, seconds", "ramp_seconds"),
    )
    request_timeout_seconds: Maybe[Seconds] = Field(
        default=None, description=_or_else("A request without an answer fails, seconds", "request_timeout_seconds")
    )
    retry_attempts: Maybe[Annotated[Whole, Field(ge=0, le=10)]] = Field(
        default=None, description=_or_else("How often a failed request is tried again", "retry_attempts")
    )
    retry_delay_seconds: Maybe[SecondsOrNone] = Field(
        default=None,
        description=_or_else("Before the first retry, doubled for each further one, seconds", "retry_delay_seconds"),
    )
    recovery_pause_minutes: Maybe[Annotated[Number, Field(ge=0, le=MOST_MINUTES)]] = Field(
        default=None,
        description=_or_else("Rest after the scenario when another one follows, minutes", "recovery_pause_minutes"),
    )
    background_requests_per_second: Maybe[Annotated[Number, Field(ge=0, le=MOST_SECONDS)]] = Field(
        default=None,
        description=_or_else("Light traffic during that rest, requests per second", "background_requests_per_second"),
    )
    service_slo_ms: Maybe[ServiceLevels] = Field(default=None, description="Response time each service should keep, ms")
    reward_weights: Maybe[RewardWeights] = Field(
        default=None, description=_or_else("Weights of the reward's components", "reward_weights")
    )
    rewards: Maybe[Annotated[dict[Name, OwnReward], Field(min_length=1)]] = Field(
        default=None,
        description="Name -> further component of the reward; all weights with those of reward_weights sum to 1",
    )


class BaseConfig(Settings):
    """Settings of all scenarios of the file."""

    base_url: Maybe[Annotated[str, Field(strict=True, max_length=300, pattern=BASE_URL)]] = Field(
        default=None,
        description="The balancer, such as http://localhost:8080/proxy; left out: named on the command line",
    )


class ProfileNode(_Node):
    """One kind of shopper."""

    description: Text = Field(default="", description="For people")
    session_duration_range: tuple[Minutes, Minutes] = Field(description="[shortest, longest] session, minutes")
    pages_per_session: tuple[Pages, Pages] = Field(description="[fewest, most] page visits at intensity medium")
    think_time_range: tuple[SecondsOrNone, SecondsOrNone] = Field(
        description="[shortest, longest] pause between the requests of one page visit, seconds"
    )
    action_probabilities: ActionProbabilities = Field(description="User action -> probability; sums to 1")
    conversion_rate: Probability = Field(description="Share of sessions that end in a paid order")
    cart_abandonment_rate: Probability = Field(description="Share of sessions with a cart that order nothing")
    cart_size: Maybe[tuple[Units, Units]] = Field(
        default=None, description=_or_else("[fewest, most] units in a cart", "cart_size")
    )


class PhaseNode(_Node):
    """One stretch of the timeline."""

    name: Name = Field(description="Letters, digits, _ and -")
    description: Text = Field(default="", description="For people")
    start_minute: Maybe[Annotated[Number, Field(ge=0, le=MOST_MINUTES)]] = Field(
        default=None, description="Minute at which it starts; left out: when the one before it ends"
    )
    duration_minutes: Minutes = Field(description="Minutes")
    intensity: Literal["extreme", "very_high", "high", "medium", "medium_low", "low", "variable"] = Field(
        description="The pace: very_high makes twice the requests of medium with the same users"
    )
    concurrent_users: Users = Field(description="Users at once")
    user_behavior_distribution: dict[str, Probability] = Field(
        min_length=1, description="Profile (singular or plural) -> share of the users; sums to 1"
    )
    scenario_weights: ScenarioWeights = Field(description="User action -> weight")
    ramp_up_time_seconds: Maybe[SecondsOrNone] = Field(
        default=None, description="How long this phase's users take to change, seconds; left out: ramp_seconds"
    )
    target_products: Maybe[Annotated[list[Label], Field(min_length=1)]] = Field(
        default=None, description="SKUs: the only products of interest in this phase; left out: the whole catalogue"
    )
    simulated_conditions: Maybe[Annotated[dict[Label, Conditions], Field(min_length=1)]] = Field(
        default=None, description="Service -> what goes wrong inside it during the whole phase"
    )
    failure_timeline: Maybe[Annotated[list[TimedConditions], Field(min_length=1)]] = Field(
        default=None, description="What goes wrong for a part of the phase"
    )
    chaos_parameters: Maybe[ChaosNode] = Field(default=None, description="Random processes around the phase")
    service_load_characteristics: Maybe[dict[Label, Level]] = Field(
        default=None, description="Service -> how many requests you expect of it; where the plan differs, it says so"
    )
    expected_service_stress: Maybe[dict[Label, Level]] = Field(
        default=None, description="Service -> how slow and faulty you expect it; verify-run compares it with the run"
    )


class ScenarioNode(Settings):
    """One scenario: a timeline of phases, and settings that differ from base_config."""

    description: Text = Field(default="", description="For people")
    traffic_patterns: list[PhaseNode] = Field(min_length=1, description="The phases, in order")


class ProductNode(_Node):
    """One article of the shop. The target has to sell it."""

    sku: Annotated[str, Field(strict=True), StringConstraints(pattern=SKU)] = Field(
        description="The target's SKU: letters, digits, . _ and -"
    )
    name: Label = Field(description="As the target calls it; searches look for its words")
    category: Label = Field(description="As the target calls it, exactly")
    brand: Label = Field(description="The maker")
    price: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(description="In the target's currency")
    weight: Maybe[Annotated[Number, Field(gt=0, le=1_000_000)]] = Field(
        default=None, description="How often shoppers take it, relative to the others; left out: 1"
    )


class AddressNode(_Node):
    """A shipping address as the order service accepts it."""

    street: Label = Field(description="House number and street")
    city: Label = Field(description="City")
    state: Label = Field(description="State")
    zip_code: Annotated[str, Field(strict=True), StringConstraints(pattern=ZIP_CODE)] = Field(
        description='In quotes: "12345" or "12345-6789"'
    )
    country: Label = Field(description="Country")
    phone: Maybe[Annotated[str, Field(strict=True), StringConstraints(pattern=PHONE)]] = Field(
        default=None, description='In quotes, digits only: "+12025550123"'
    )


class Suite(_Node):
    """Everything of a file."""

    base_config: BaseConfig = Field(default_factory=lambda: BaseConfig(), description="Settings of all scenarios")
    user_behavior_profiles: dict[Name, ProfileNode] = Field(min_length=1, description="Name -> kind of shopper")
    training_scenarios: dict[Name, ScenarioNode] = Field(min_length=1, description="Name -> scenario")
    product_catalogue: list[ProductNode] = Field(min_length=1, description="What shoppers buy")
    shipping_addresses: list[AddressNode] = Field(min_length=1, description="Where orders go")


class FileNode(_Node):
    """A scenario file."""

    editor_schema: Maybe[Annotated[str, Field(strict=True)]] = Field(
        default=None, alias="$schema", description="For editors of JSON files: the path of schema.json"
    )
    rl_training_scenarios: Suite = Field(description="Everything of the file")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file, for editors and for validators of other languages."""
    schema = _without_null(FileNode.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "RL training scenarios"}


def _without_null(schema: Any) -> Any:
    """A key left out is None in the types but must not be null in a file; titles only repeat the keys."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_null(item) for key, item in schema.items() if not _is_noise(key, item)}
    choices = plain.get("anyOf", [])
    if {"type": "null"} in choices:
        (choice,) = [choice for choice in choices if choice != {"type": "null"}]
        del plain["anyOf"]
        plain = {**choice, **plain}
    if "patternProperties" in plain:
        plain["additionalProperties"] = False
    return plain


def _is_noise(key: str, item: Any) -> bool:
    return (key == "title" and isinstance(item, str)) or (key == "default" and item in (None, ""))
