"""What can go wrong, each class one sentence; the name says whether trying again helps. A fault in the program is none.

ConclaveError                     (tasks/council/exceptions.py)
├── WrongUse                      what somebody gave cannot be used; the text names the field
│   ├── InvalidRequest            a request (tasks/council/models.py)
│   │   ├── OtherRequest          an id that is another request's
│   │   └── UnknownCouncil        a council that there is not
│   ├── InvalidBallot             a model's answer that is no ballot (tasks/council/voting/ballots.py)
│   ├── MappingError              a listener's expression, or what it makes of an event
│   ├── PrefixError, SettingsError, CouncilFileError, EventFileError
│   │                             a setting or a file, by its name
│   ├── BatchFileError            a file of rows that cannot be read as it is meant (tasks/batch/records.py)
│   ├── TokenError                a token of the gateway
│   ├── SigningError              a secret of callbacks that cannot be made or found (tasks/access/signing.py)
│   ├── SecretError               a webhook's secret that cannot be had (deployments/webhooks/secret_references.py)
│   └── UnknownFlow, OtherRun     a message in the queue that names what it may not
├── StackError                    the local stack (deployments/stack/exceptions.py)
├── BenchError                    the benchmark
├── Problem                       an answer of the gateway that is an error (deployments/gateway/problems.py)
├── Refused                       the same over gRPC (deployments/gateway/rpc/statuses.py)
├── GatewayError, GatewayAway, NothingFollows
│                                 what a client of the gateway was answered, or not (deployments/client/answers.py)
├── NotDecided                    a run ended without the end of its deliberation; another one goes on
├── PrefectUnavailable            Prefect's server does not answer
├── PrefectRefused                Prefect's server refuses our key
├── BlockMissing                  no block document of that name
├── BlockUnusable                 a block document with a value that cannot be
├── OtherInstallation             Prefect's names, or a record, belong to another installation
├── ModelServerError
│   ├── ModelServerUnavailable    worth another attempt
│   └── ModelServerRefused        not worth another attempt
├── RecordError
│   ├── RecordUnavailable         JetStream did not answer in time
│   ├── RecordRefused             NATS refuses our credentials
│   ├── RecordMisconfigured       a stream or bucket is missing or shaped otherwise
│   ├── RecordFull                a stream takes no more messages
│   ├── RecordUnreadable          a body that stands there is not what it should be
│   ├── NewerVersion              what stands there was written by a later version of Conclave
│   └── Superseded                somebody else runs the deliberation now
├── GitHubError                   GitHub's API did not do what was asked of it
├── AgentsUnavailable             no Ray cluster, or no agent host that answers
└── Orphaned                      nobody runs the deliberation that an agent task belongs to
"""

from __future__ import annotations

from tasks.council.exceptions import ConclaveError, WrongUse

__all__ = ["ConclaveError", "WrongUse"]


class PrefectUnavailable(ConclaveError):
    """Prefect's server does not answer."""


class PrefectRefused(ConclaveError):
    """Prefect's server refuses our key, or has none of ours."""


class BlockMissing(ConclaveError):
    """Prefect holds no block document of that name."""


class BlockUnusable(ConclaveError):
    """Prefect holds a block document with a value that cannot be; the text names the field."""


class OtherInstallation(ConclaveError):
    """Prefect's names, or a record, belong to another installation; the text has both ids."""


class ModelServerError(ConclaveError):
    """A model server did not give a completion."""


class ModelServerUnavailable(ModelServerError):
    """The server is away, overloaded, or broke off in mid-answer; another attempt may succeed.

    `retry_after_s`: it asks to be left alone for so many seconds. `limited`: by a limit of calls in a time, so
    that waiting is all that helps.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, limited: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.limited = retry_after_s, limited


class ModelServerRefused(ModelServerError):
    """The server understood the call and will not answer it; another attempt gives the same.

    `status` is the HTTP status that it answered with, where it is one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RecordError(ConclaveError):
    """JetStream could not be written or read."""


class RecordUnavailable(RecordError):
    """JetStream did not answer within the patience of the block."""


class RecordRefused(RecordError):
    """NATS refuses our credentials, or misses them."""


class RecordMisconfigured(RecordError):
    """A stream or bucket is missing, or is shaped otherwise than Conclave needs."""


class RecordFull(RecordError):
    """A stream has a limit and takes no more; nothing of this was stored."""


class RecordUnreadable(RecordError):
    """A body that stands on the record or in the queue is not what it should be; reading it again gives the same."""


class NewerVersion(RecordError):
    """What stands on the record or in the queue was written by a later version, and is left to a worker of that one."""


class Superseded(RecordError):
    """Somebody else runs the deliberation now, and what this run writes is refused; `run` is their flow run."""

    def __init__(self, message: str, run: str | None = None) -> None:
        super().__init__(message)
        self.run = run


class GitHubError(ConclaveError):
    """GitHub's API did not do what was asked of it.

    `status` is that of its answer, where there was one; `retry_after_s`: when it wants to be asked again.
    """

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class AgentsUnavailable(ConclaveError):
    """There is no Ray cluster at the address, it is gone, or none of its agent hosts answers."""


class NotDecided(ConclaveError):
    """A run ended without a final status on the record; another try may bring it."""


class Orphaned(ConclaveError):
    """Nobody runs the deliberation any more that an agent task waits for."""
