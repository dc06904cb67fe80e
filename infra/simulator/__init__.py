"""A stand-in for vLLM's OpenAI server: for rehearsals, tests and load, never for decisions.

A real HTTP server with vLLM's routes, error bodies and metrics, a latency model, and faults on demand. Its
text is made from the task, the role and the seed, and says of itself that it is simulated. Players answer closed
questions with given accuracy and bias.

    python -m infra.simulator --port 8000 --latency 0.5
"""

from infra.simulator.faults import FaultRule
from infra.simulator.players import KeyEntry, Player, Players
from infra.simulator.server import SimulatorServer, simulator
from infra.simulator.settings import SimulatorSettings

__all__ = ["FaultRule", "KeyEntry", "Player", "Players", "SimulatorServer", "SimulatorSettings", "simulator"]
