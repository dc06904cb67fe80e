"""What can go wrong with the local stack.

StackError
├── StackOptionsError        the options contradict each other, or something needed was not given
├── StackBusyError           another `up` or `down` of the same home is at work
├── StackRecordError         what is remembered of the stack cannot be used
├── SupervisorError          supervisord did not start, does not answer, or refused
├── PartError                one part is not usable
│   ├── PartExitedError      it ended while it was being started
│   ├── PartTimeoutError     it did not answer in time
│   └── ExternalPartError    it was given from outside and does not answer
└── NoAnswerError            one question to a part got no usable answer (inside; it is asked again)
"""

from tasks.council.exceptions import ConclaveError


class StackError(ConclaveError):
    """Base of all errors of the local stack."""


class StackOptionsError(StackError):
    """The options contradict each other, or something that they need was not given."""


class StackBusyError(StackError):
    """Another `up` or `down` of the same home is at work and did not finish in time."""


class StackRecordError(StackError):
    """What is remembered of the stack of a home cannot be used."""


class SupervisorError(StackError):
    """The process supervisor did not start, does not answer, or refused a request."""


class PartError(StackError):
    """One part of the stack is not usable; `part` is its name."""

    def __init__(self, part: str, text: str) -> None:
        """Say of which part it is, and what happened."""
        super().__init__(text)
        self.part = part


class PartExitedError(PartError):
    """A part ended while it was being started; the text carries the end of its log."""


class PartTimeoutError(PartError):
    """A part did not answer within the start timeout; the text carries the end of its log."""


class ExternalPartError(PartError):
    """A part that was given from outside does not answer."""


class NoAnswerError(StackError):
    """One question to a part got no usable answer."""
