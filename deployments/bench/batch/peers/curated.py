"""Bespoke Labs' curator, in an environment of its own: it pins what we have newer, so nothing of ours is imported here.

The protocol is that of `protocol.py`.
"""

import contextlib
import json
import os
import sys
import time

MANY = 100_000_000
"""Requests and tokens a minute: the pace is the slots' alone."""


def main() -> None:
    """Prepare, wait for the word, ask, and tell."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.stdin.readline())
    key = os.environ.get("CONCLAVE_LLM_API_KEY") or "none"
    os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1", "CURATOR_VIEWER": "false"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": job["folder"], "CURATOR_CACHE_DIR": job["folder"]}
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm.litellm_core_utils.default_encoding  # noqa: F401  # has the tokenizer, and tells tiktoken where
    from bespokelabs import curator

    with open(job["calls"], "rb") as file:  # noqa: PTH123  # as its users would
        bodies = [json.loads(line.partition(b"\t")[2]) for line in file]
    limits = dict.fromkeys(("max_requests_per_minute", "max_tokens_per_minute"), MANY)
    model = curator.LLM(
        model_name=job["model"],
        backend="openai",
        generation_params={"max_tokens": bodies[0]["max_tokens"], "temperature": bodies[0]["temperature"]},
        backend_params={
            "base_url": f"{job['url']}/v1",
            "api_key": key,
            "max_concurrent_requests": job["slots"],
            "require_all_responses": False,
            "max_retries": 0,
            "invalid_finish_reasons": ["content_filter"],
            **limits,
        },
    )
    told.write('{"ready": true}\n')
    sys.stdin.readline()
    started = time.time()
    asked = [body["messages"] for body in bodies]
    answers = model(asked, working_dir=job["folder"]).dataset
    said = {"seconds": time.time() - started, "started": started, "answered": len(answers)}
    told.write(json.dumps(said) + "\n")
    with contextlib.suppress(EOFError):
        sys.stdin.readline()


if __name__ == "__main__":
    main()
