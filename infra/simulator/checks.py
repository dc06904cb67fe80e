"""What a well-formed request may still not ask for, and vLLM's answer to it, observed with vLLM 0.32."""

from __future__ import annotations

import math
from itertools import chain

from infra.simulator import errors
from infra.simulator.chat import ChatRequest, Prompt
from infra.simulator.settings import SimulatorSettings

MAX_LOGPROBS = 20
MAX_CHOICES = 16_384
MORE_CHOICES = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
NO_STREAM = "Stream options can only be defined when `stream=True`."
NO_LOGPROBS = "when using `top_logprobs`, `logprobs` must be set to true."
NO_MESSAGES = "Cannot apply chat template to an empty conversation. Provide at least one message."
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
NO_SCHEMA = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
NO_UNICODE = "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"


def check(request: ChatRequest, prompt: Prompt, settings: SimulatorSettings) -> None:
    """Raises the ApiError that vLLM would give, in the order in which it looks."""
    _check_options(request)
    if request.model not in (None, settings.model):
        raise errors.unknown_model(str(request.model), settings.model)
    if not request.messages:
        raise errors.refused(NO_MESSAGES)
    _check_features(request, settings)
    _check_text(prompt)
    _check_length(request, prompt, settings.max_model_len)
    _check_sampling(request)


def _check_options(request: ChatRequest) -> None:
    """Options that need another one; vLLM's request model looks at them first."""
    if request.stream_options and not request.stream:
        raise errors.refused(f"{NO_STREAM} (parameter=stream_options)", "stream_options")
    if request.top_logprobs and not request.logprobs:
        raise errors.refused(f"{NO_LOGPROBS} (parameter=top_logprobs)", "top_logprobs")
    wanted = request.response_format
    if wanted and wanted.type == "json_schema" and wanted.json_schema is None:
        raise errors.refused(f"{NO_SCHEMA} (parameter=response_format)", "response_format")


def _check_features(request: ChatRequest, settings: SimulatorSettings) -> None:
    if request.tools and request.tool_choice in (None, "auto"):
        raise errors.refused(NO_TOOLS)
    contents = (message.content for message in request.messages)
    parts = chain.from_iterable(content for content in contents if isinstance(content, list))
    if any(part.get("type", "text") != "text" for part in parts):
        raise errors.refused(f"{settings.model} is not a multimodal model")


def _check_text(prompt: Prompt) -> None:
    try:
        prompt.text.encode()
    except UnicodeEncodeError as error:  # a lone surrogate
        raise errors.refused(NO_UNICODE) from error


def _check_length(request: ChatRequest, prompt: Prompt, max_model_len: int) -> None:
    name, limit = request.output_limit
    if limit is not None and limit > max_model_len:
        message = f"{name}={limit} cannot be greater than max_model_len={max_model_len}."
        raise errors.refused_value(f"{message} Please request fewer output tokens.", name, limit)
    if (characters := len(prompt.text)) > max_model_len * errors.MAX_CHARS_PER_TOKEN:
        raise errors.prompt_too_long(max_model_len, characters)
    if prompt.tokens > max_model_len:
        raise errors.prompt_too_long(max_model_len)


def _check_sampling(request: ChatRequest) -> None:
    """As `SamplingParams._verify_args` of vLLM `sampling_params.py`."""
    _check_choices(request.choices)
    for name in ("presence_penalty", "frequency_penalty"):
        if (value := getattr(request, name)) is not None and not -2 <= value <= 2:
            raise errors.refused(f"{name} must be in [-2, 2], got {value}.")
    _check_temperature(request.temperature)
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise errors.refused_value(f"top_p must be in (0, 1], got {request.top_p}.", "top_p", request.top_p)
    _check_limit(request.output_limit[1], request.min_tokens)
    if request.temperature == 0 and request.choices > 1:
        raise errors.refused(f"n must be 1 when using greedy sampling, got {request.choices}.")
    if (asked := request.top_logprobs or 0) > MAX_LOGPROBS:
        message = f"Requested sample logprobs of {asked}, which is greater than max allowed: {MAX_LOGPROBS}"
        raise errors.refused_value(message, "logprobs", asked)


def _check_choices(n: int) -> None:
    if n < 1:
        raise errors.refused(f"n must be at least 1, got {n}.")
    if n > MAX_CHOICES:
        raise errors.refused(f"n must be at most {MAX_CHOICES}, got {n}. {MORE_CHOICES}")


def _check_limit(limit: int | None, least: int) -> None:
    """Whichever name the limit was given by, it is `max_tokens` here."""
    if limit is None:
        return
    if limit < 1:
        raise errors.refused_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if least > limit:
        raise errors.refused(f"min_tokens must be less than or equal to max_tokens={limit}, got {least}.")


def _check_temperature(value: float | None) -> None:
    if value is None:
        return
    if not math.isfinite(value):
        problem = "must be a finite number"
    elif value < 0:
        problem = "must be non-negative"
    elif value > 2:
        problem = "must be in [0, 2]"
    else:
        return
    raise errors.refused_value(f"temperature {problem}, got {value}.", "temperature", value)
