"""The names that old files have for things."""

import re

from scenario.convert.values import plain_key

ROOT = "rl_training_scenarios"

BASE = {
    "base_config", "base", "base_configuration", "base_settings", "global", "global_config", "global_settings",
    "common", "general", "defaults", "settings", "test_config", "load_test_config", "test_settings",
}  # fmt: skip
PROFILES = {
    "user_behavior_profiles", "user_behaviour_profiles", "user_profiles", "behavior_profiles", "behaviour_profiles",
    "profiles", "user_behaviors", "user_behaviours", "user_types", "personas",
}  # fmt: skip
CATALOGUE = {
    "product_catalogue", "product_catalog", "products", "catalogue", "catalog", "sample_products", "test_products",
    "product_list",
}  # fmt: skip
ADDRESSES = {
    "shipping_addresses", "shipping_address", "addresses", "sample_addresses", "test_addresses", "delivery_addresses",
}  # fmt: skip
PHASES = (
    "traffic_patterns", "traffic_pattern", "phases", "chaos_phases", "degradation_phases", "failure_phases", "stages",
    "waves", "load_phases", "traffic_phases", "test_phases", "load_patterns", "patterns", "stress_phases",
)  # fmt: skip
CONTAINERS = {ROOT, "config", "configuration", "rl_training", "rl_training_config", "load_test", "locust", "test_suite"}

ACTIONS = {
    **dict.fromkeys(("browse", "browsing", "browse_products", "view", "view_product", "view_products"), "browse"),
    **dict.fromkeys(("search", "searching", "search_products", "product_search"), "search"),
    **dict.fromkeys(("cart", "add_to_cart", "cart_add", "cart_operations", "view_cart", "cart_management"), "cart"),
    **dict.fromkeys(("order", "ordering", "place_order", "purchase", "checkout", "buy", "orders"), "order"),
    **dict.fromkeys(("profile", "account", "view_profile", "user_profile", "view_account"), "profile"),
}
"""Spelling -> user action."""

DESCRIBING = re.compile(
    r"_?(notes?|comments?|remarks?|version|schema_version|authors?|owner|team|contact|created(_.*)?|updated(_.*)?|"
    r"modified(_.*)?|last_(updated|modified|changed)|date|tags?|labels?|purpose|objectives?|goals?|title|summary|documentation|docs|references?|"
    r"metadata|priority|expected_.*|success_criteria|acceptance_criteria|learning_.*|training_(focus|goals?|value)|"
    r"rl_(focus|objectives?|goals?|learning.*)|focus(_.*)?|rationale|reason|business_(goals?|context|value)|scenario_type|test_type|display_name|schema|characteristics|"
    r"emphasis|primary_services|target_services)"
)
"""Keys that tell people something and change no request."""

RECORDING = re.compile(
    r"(log|logs|logging|output|export|results?|reports?|reporting|metrics|monitoring|data_export|save|csv|html)(_.*)?|"
    r"enable_(metrics|logging|monitoring|reporting)|collect_.*"
)
"""Keys about what old tools wrote: here the recorder and the exporter decide that, and the traffic stays the same."""

CONNECTIONS = re.compile(r"(connection_pool|max_connections|pool)(_.*)?|keep_alive|connections_per_.*")
"""Keys about connection pools."""


def is_scenarios(key: str) -> bool:
    plain = plain_key(key)
    return plain == "scenarios" or (plain.endswith("_scenarios") and plain != ROOT)


def is_section(key: str) -> bool:
    plain = plain_key(key)
    return is_scenarios(key) or plain in BASE | PROFILES | CATALOGUE | ADDRESSES


def looks_old(key: str) -> bool:
    """Whether a key that the loader does not know is one that the converter knows: for a hint, so the usual ones do."""
    plain = plain_key(key)
    return is_section(key) or plain in PHASES or plain in _USUAL or plain.endswith("_probability")


_USUAL = {
    "users", "user_count", "num_users", "weights", "action_weights", "user_distribution", "user_mix", "chaos_config",
    "min_think_time", "max_think_time", "session_duration_minutes", "zip", "zipcode", "postal_code", "duration",
    "duration_seconds", "duration_hours", "spawn_rate",
}  # fmt: skip
