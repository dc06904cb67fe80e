"""What stands in the queue, or could."""

from __future__ import annotations

import json

from hypothesis import strategies as st

TASKS = st.sampled_from(["Choose a queue", "Name the service", "Write a poem"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
GARBAGE = st.one_of(
    st.binary(max_size=64),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.text(max_size=8) | st.none() | st.integers(),
            "flow": st.sampled_from(["os.system", "flows.deliberate.nothing", "flows.deliberate.deliberate", ""]),
            "parameters": JSON,
            "run": JSON,
            "door": st.sampled_from(["planning", "nowhere"]) | JSON,
            "lane": JSON,
        },
    ).map(lambda value: json.dumps(value).encode()),
)
"""Bodies of messages in the queue that nobody of ours would send."""
