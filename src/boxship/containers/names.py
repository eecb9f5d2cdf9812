"""Names for containers that were given none: an adjective and a port city."""

from __future__ import annotations

import re
import secrets

from boxship.errors import Invalid

_ADJECTIVES = ["able", "amber", "ample", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "casual", "cheerful", "clever", "coastal", "cobalt", "copper", "coral", "cosmic", "cozy", "crisp", "daring", "deft", "eager", "early", "earnest", "easy", "fair", "famous", "fancy", "fearless", "firm", "fleet", "fluent", "fond", "frank", "free", "fresh", "gentle", "gilded", "glad", "golden", "grand", "happy", "hardy", "hearty", "honest", "humble", "ideal", "jolly", "keen", "kind", "large", "lively", "loyal", "lucid", "lucky", "lunar", "mellow", "merry", "mighty", "mild", "misty", "modest", "neat", "nimble", "noble", "northern", "open", "patient", "plain", "polite", "prime", "proud", "quick", "quiet", "rapid", "ready", "robust", "royal", "rustic", "salty", "secure", "serene", "sharp", "silent", "silver", "simple", "sincere", "sleek", "smart", "snug", "solid", "southern", "spry", "stable", "steady", "stout", "sturdy", "sunny", "sure", "swift", "tender", "tidy", "trim", "true", "trusty", "upbeat", "valiant", "vivid", "warm", "western", "wise", "witty", "zesty"]
_PORTS = ["aarhus", "accra", "adelaide", "alexandria", "algeciras", "alicante", "amsterdam", "ancona", "antwerp", "aqaba", "athens", "auckland", "baku", "baltimore", "bangkok", "barcelona", "bari", "beira", "bergen", "bilbao", "bombay", "bordeaux", "boston", "bremen", "brest", "bristol", "brisbane", "busan", "cadiz", "calais", "callao", "cardiff", "cartagena", "catania", "cebu", "chennai", "chiba", "colombo", "constanta", "copenhagen", "cork", "dakar", "danang", "darwin", "djibouti", "dover", "dublin", "dunedin", "durban", "esbjerg", "felixstowe", "fremantle", "galway", "gdansk", "gdynia", "genoa", "ghent", "gothenburg", "haifa", "halifax", "hamburg", "havana", "helsinki", "hobart", "incheon", "izmir", "jakarta", "kiel", "kobe", "kotka", "lagos", "larnaca", "leith", "libau", "lisbon", "liverpool", "lome", "luanda", "malaga", "malmo", "manila", "maputo", "marseille", "melbourne", "messina", "miami", "mombasa", "montreal", "muscat", "nagoya", "nantes", "naples", "nassau", "oakland", "odessa", "oslo", "osaka", "palermo", "perth", "piraeus", "porto", "quebec", "ravenna", "reykjavik", "riga", "rostock", "rotterdam", "salerno", "santos", "savona", "seattle", "shanghai", "singapore", "split", "stavanger", "stockholm", "sydney", "tallinn", "tampa", "tangier", "toulon", "trieste", "tunis", "turku", "valencia", "valparaiso", "vancouver", "varna", "venice", "vigo", "wellington", "yokohama", "zadar", "zeebrugge"]

VALID = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def generate() -> str:
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_PORTS)}"


def validated(name: str) -> str:
    """The name without a leading slash; raises `Invalid` in Docker's words."""
    if not VALID.fullmatch(name):
        raise Invalid(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")
