"""How a simulator is set up; every field is an option of `python -m infra.simulator`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from infra.simulator.dialects import Dialects
from infra.simulator.faults import FaultRule
from infra.simulator.players import Players


class SimulatorSettings(BaseModel):
    """Address, model, pace and room of one simulator. Times are seconds, sizes are tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65_535, description="Port to listen on; 0 lets the system choose.")
    model: str = Field("simulated", min_length=1, description="Name of the one model that is served.")
    latency_s: float | None = Field(None, ge=0, description="Seconds for every answer, whatever its length.")
    ttft_s: float = Field(0.1, ge=0, description="Seconds to the first token, where no latency is set.")
    tpot_s: float = Field(0.003, ge=0, description="Seconds for each token, where no latency is set.")
    jitter: float = Field(0.0, ge=0, lt=1, description="Share by which those times vary, up and down.")
    slots: int = Field(256, ge=1, description="Requests that are answered at once.")
    max_queue: int = Field(10_000, ge=0, description="Requests that may wait; one more is refused with 503.")
    api_key: SecretStr | None = Field(None, description="Key that /v1 and /sim ask for.")
    max_model_len: int = Field(32_768, ge=32, description="Tokens of prompt and answer together.")
    keepalive_s: float = Field(5.0, gt=0, description="Seconds until an idle connection closes, as in vLLM.")
    faults: tuple[FaultRule, ...] = Field((), description="Faults that are on from the start.")
    dialects: Dialects = Field((), description="What it takes or says otherwise than vLLM does.")
    players: Players = Field(Players(), description="Players that are on from the start.")
