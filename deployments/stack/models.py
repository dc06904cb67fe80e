"""The data of the local stack: what is asked for, what is remembered on disk, and what is told."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from blocks.urls import without_credentials

PartState = Literal["running", "starting", "external", "stopped", "failed"]
Database = Literal["sqlite", "postgresql"]


ShownUrl = Annotated[str, AfterValidator(without_credentials)]
"""A URL that is told: whatever it is given, it holds no credentials; these come out by `environment` alone."""


class UpOptions(BaseModel):
    """What `conclave up` was asked for; without any of it the settings decide which model server is used."""

    model_config = ConfigDict(frozen=True)

    llm_url: str | None = Field(default=None, description="A model server that runs already.")
    model: str | None = Field(default=None, description="The model to ask it for; default: the first it lists.")
    simulate: bool = Field(default=False, description="Use the simulator, whatever else is there.")
    simulator_args: tuple[str, ...] = Field(default=(), description="Further arguments of the simulator.")
    open: bool = Field(default=False, description="Let everybody on this machine use the gateway without a token.")
    worker: bool = Field(default=True, description="Start a worker, which needs the stack to be provisioned.")


class PartStatus(BaseModel):
    """One part: its state, and whether it answered when it was asked just now."""

    state: PartState = Field(description="As its supervisor sees it; external: not ours.")
    pid: int | None = Field(default=None, description="Its first process; null for an external part.")
    url: ShownUrl | None = Field(default=None, description="Where it is.")
    grpc: str | None = Field(default=None, description="Where it takes gRPC, too.")
    answers: bool | None = Field(default=None, description="Whether it gave a real answer; null: not asked.")
    reason: str | None = Field(default=None, description="Why it is not running, or gives no answer.")
    uptime_s: float | None = Field(default=None, description="Seconds since it was last started.")
    restarts: int = Field(default=0, description="How often it was started again since `up`.")
    log: str | None = Field(default=None, description="The file that its output goes to.")


class StackStatus(BaseModel):
    """The whole stack, as it may be shown to anybody."""

    gateway: ShownUrl | None = None
    prefect: ShownUrl | None = Field(
        default=None, description="The API's URL, fit for PREFECT_API_URL; the UI is its parent."
    )
    nats: ShownUrl | None = None
    llm: ShownUrl | None = Field(default=None, description="The model server's root, without /v1.")
    ray: str | None = None
    home: str
    model: str | None = Field(default=None, description="The model that members are asked for by default.")
    simulated: bool = Field(default=False, description="Whether the model server is the simulator.")
    open: bool = Field(default=False, description="Whether everybody here may use the gateway without a token.")
    database: Database | None = Field(default=None, description="What our Prefect keeps its data in.")
    prefix: str | None = Field(default=None, description="What our names in Prefect carry.")
    parts: dict[str, PartStatus] = {}
    problems: list[str] = Field(default=[], description="What is wrong with the files of the stack, in sentences.")

    @property
    def is_up(self) -> bool:
        """Whether every part is there, none that was asked failed to answer, and no file of theirs is lost."""
        states = self.parts.values()
        return (
            bool(states)
            and not self.problems
            and all(part.state in ("running", "external") and part.answers is not False for part in states)
        )


NEEDED = ("nats", "llm", "prefect", "ray")
"""The parts that every stack has; a worker is with it or not."""


class PartRecord(BaseModel):
    """Where a part of a stack that was started is, credentials included, whether it is ours; where it takes gRPC."""

    url: str
    external: bool = False
    grpc: str | None = None


class StackRecord(BaseModel):
    """What is remembered of a stack between commands (one file, readable by its owner only)."""

    parts: dict[str, PartRecord]
    model: str | None = None
    simulated: bool = False
    open: bool = False
    database: Database | None = None
    prefix: str | None = None
    given: dict[str, str] = Field(default_factory=dict)  # keys from the user's environment for parts from outside
    keys: dict[str, str] = Field(default_factory=dict)  # digests of the home's keys that the parts were started with
    llm_key: str | None = None  # what the user gave; a model server of ours without has the home's own
