"""JSON values for a schema: what a model under structured output would answer, without its thought.

The refusals are vLLM's, observed with 0.32. Of JSON Schema it knows what models can be held to: objects,
arrays, strings, numbers, booleans, null, enum, const, anyOf, oneOf, allOf and local references.
"""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

from infra.simulator.chat import ResponseFormat
from infra.simulator.errors import refused
from infra.simulator.text import remark

Schema = dict[str, Any]

MAX_DEPTH = 6
"""Below it only what is required is written, and far below it nothing is."""
MAX_ITEMS = 1_000
STRING_CHARS = 120
ANY_OBJECT: Schema = {
    "type": "object",
    "properties": {"simulated": {"const": True}, "answer": {"type": "string"}},
}
"""What is written where any object will do."""
PLAIN_TEXTS = ("A", "a", "1", "A1", "a1", "2026-01-01")
"""What is tried where a pattern takes no sentence."""


def structured_text(
    response_format: ResponseFormat | None, outputs: dict[str, Any] | None, words: list[str], seed: str
) -> str | None:
    """The answer that a request's format calls for, None for free text; raises ApiError (400)."""
    outputs = outputs or {}
    writer = _Writer(random.Random(seed), words)
    if outputs.get("choice") == []:
        raise refused("Choice '[]' cannot be an empty list")
    schema = _schema_of(response_format, outputs)
    try:
        if choices := outputs.get("choice"):
            return str(writer.draw(choices))
        if pattern := outputs.get("regex"):
            return str(writer.value({"type": "string", "pattern": f"^(?:{pattern})$"}))
        if schema is None:
            return None
        writer.root = json.loads(schema) if isinstance(schema, str) else schema
        return json.dumps(writer.value(writer.root), ensure_ascii=False)
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise refused(f"Grammar error: Invalid schema: {error}") from error


def _schema_of(response_format: ResponseFormat | None, outputs: dict[str, Any]) -> Any:
    """The schema to hold to, an object or its text; None where neither the format nor `outputs` has one."""
    kind = response_format.type if response_format else None
    if kind == "json_schema" and response_format and response_format.json_schema:
        return response_format.json_schema.get("schema")
    if kind == "json_object" and outputs.get("json") is None:
        return ANY_OBJECT
    return outputs.get("json")


class _Writer:
    """Draws one value; members of an enum come once each before any comes again."""

    def __init__(self, chance: random.Random, words: list[str]) -> None:
        self.root: Schema = {}
        self._chance = chance
        self._words = words
        self._decks: dict[str, list[Any]] = {}

    def draw(self, values: list[Any]) -> Any:
        key = json.dumps(values)
        if not self._decks.get(key):
            self._decks[key] = self._chance.sample(values, len(values))
        return self._decks[key].pop()

    def value(self, schema: Schema | bool, depth: int = 0) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise refused("Grammar error: the schema has no end")
        schema = self._plain(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.draw(schema["enum"])
        kind = schema.get("type") or ("array" if "items" in schema else "object")
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, schema, depth)

    def _of_kind(self, kind: Any, schema: Schema, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return self._chance.random() < 0.5
            case "null":
                return None
        raise refused(f"Grammar error: Invalid type: {kind}")

    def _plain(self, schema: Schema | bool) -> Schema:
        """The schema without references and combinations; the first alternative stands for all."""
        plain = schema if isinstance(schema, dict) else {}
        for _ in range(MAX_DEPTH):
            if "$ref" in plain:
                plain = self._resolved(plain["$ref"])
            elif alternatives := plain.get("anyOf") or plain.get("oneOf"):
                rest = {key: value for key, value in plain.items() if key not in ("anyOf", "oneOf")}
                plain = {**rest, **alternatives[0]}
            elif "allOf" in plain:
                plain = self._merged(plain)
            else:
                break
        return plain

    def _merged(self, schema: Schema) -> Schema:
        merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        for part in map(self._plain, schema["allOf"]):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            merged = {**merged, **part, **({"properties": properties} if properties else {})}
        return merged

    def _resolved(self, reference: str) -> Schema:
        found: Any = self.root
        for part in reference.split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not reference.startswith("#") or not isinstance(found, dict):
            raise refused(f"Grammar error: Unresolvable reference: {reference}")
        return found

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Schema = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if name in required or depth < MAX_DEPTH]
        names += [name for name in required if name not in properties]
        return {name: self.value(properties.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first: list[Any] = schema.get("prefixItems", [])
        items = self._plain(schema.get("items", {"type": "string"}))
        usual = len(items.get("enum", ())) or max(2, len(first))
        low = schema.get("minItems", 0 if depth >= MAX_DEPTH else usual)
        count = min(max(low, 0), schema.get("maxItems", MAX_ITEMS), MAX_ITEMS)
        values = []
        for place in range(count):
            schema_there = first[place] if place < len(first) else items
            values.append(self.value(schema_there, depth + 1))
        return values

    def _string(self, schema: Schema) -> str:
        low = schema.get("minLength", 0)
        high = schema.get("maxLength", max(STRING_CHARS, low))
        sentence = remark(self._chance, self._words)
        word = self._words[0] if self._words else "answer"
        digits = str(self._chance.randint(0, 99)) if "pattern" in schema else sentence
        for candidate in (digits, sentence, word, word.capitalize(), word.upper(), *PLAIN_TEXTS):
            text = candidate.ljust(low, ".")[:high].rstrip().ljust(low, ".")
            if re.search(schema.get("pattern", ""), text):
                return text
        raise refused(f"Grammar error: the simulator knows no text for pattern {schema['pattern']!r}")

    def _number(self, schema: Schema, whole: bool) -> int | float:
        step = schema.get("multipleOf", 1 if whole else 0.1)
        low, high = _bounds(schema)
        first, last = math.ceil(round(low / step, 9)), math.floor(round(high / step, 9))
        first += first * step <= schema.get("exclusiveMinimum", -math.inf)
        last -= last * step >= schema.get("exclusiveMaximum", math.inf)
        if first > last:
            return (low + high) / 2
        drawn = self._chance.randint(first, last) * step
        return int(drawn) if whole else round(drawn, 9)


def _bounds(schema: Schema) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None or high >= 0 else high - 10
    return low, low + 10 if high is None else high
