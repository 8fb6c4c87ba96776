"""Random generators of Python and NumPy whose numbers can be chosen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_WORDS = (0x00000020, 0x55555555, 0xAAAAAAAA, 0xFFFFFFDF)
"""What a Mersenne Twister gives for uniform numbers close to 0, 1/3, 2/3 and 1, in high bits and in low ones."""
_FIXED_WORDS = 100
"""How many equal words come before random ones: algorithms that reject numbers would never end otherwise."""
_STATE_WORDS = 624
_TRIALS = len(_WORDS) + 1
_UNSTEERABLE_TRIALS = 16


_NUMBERS = "so a graph would repeat those of one call for ever; draw them by torch (torch.rand)"


@dataclass(frozen=True)
class Source:
    """Something outside of a model that may be another at its next run.

    Attributes:
        name: What messages call it.
        read: Returns something that compares unequal after it was used.
        steer: Lets it give the numbers of one trial.
        trials: How many trials there are.
        advice: Ends the sentence that refuses a model which computes with it.
        conditions: Returns the conditions on the caller under which the first run is right, where there are any; a
            model that computes with the source is then not refused.
        follows_gradients: Whether what is cut off from gradients counts as something else.
    """

    name: str
    read: Callable[[], object]
    steer: Callable[[int], None]
    trials: int
    advice: str = _NUMBERS
    conditions: Callable[[], tuple[tuple[Any, ...], ...]] = tuple
    follows_gradients: bool = True


def is_generator(value: object) -> bool:
    """Tell whether a value is a generator that `generator_source` takes."""
    return is_python_generator(value) or is_numpy(value, "Generator") or is_numpy(value, "RandomState")


def global_generators() -> dict[str, Any]:
    """Return the generators behind the functions of ``random`` and ``numpy.random``, by what messages call them."""
    draw: Any = random.random
    module: Any = sys.modules.get("numpy.random")
    python = {"Python's random": draw.__self__}
    return python if module is None else {**python, "NumPy's random": module.mtrand._rand}


def is_global(generator: object) -> bool:
    """Tell whether a generator is one of `global_generators`."""
    return any(generator is known for known in global_generators().values())


def is_python_generator(value: object) -> bool:
    """Tell whether a value is a generator of ``random`` that has a state."""
    return isinstance(value, random.Random) and not isinstance(value, random.SystemRandom)


def is_numpy(value: object, name: str) -> bool:
    """Tell whether a value is of a class of ``numpy.random``, which need not be imported."""
    module = sys.modules.get("numpy.random")
    return module is not None and isinstance(value, getattr(module, name))


def generator_source(name: str, generator: Any) -> Source:
    """Return a generator of Python or NumPy as a source; the caller puts its state back."""
    if is_python_generator(generator):
        return Source(name, generator.getstate, lambda trial: generator.setstate(_python_state(trial)), _TRIALS)
    if is_numpy(generator, "RandomState"):
        # Its state has more than its bits: the second number of a pair from a normal distribution.
        bits, read = generator._bit_generator, lambda: _comparable(generator.get_state(legacy=False))
    else:
        bits, read = generator.bit_generator, lambda: _comparable(generator.bit_generator.state)
    return Source(name, read, lambda trial: _steer(bits, trial), _trials(bits))


def _comparable(state: Any) -> object:
    """Return a state of NumPy without dicts and arrays, whose comparison would give no single answer."""
    if isinstance(state, dict):
        return tuple((key, _comparable(value)) for key, value in state.items())
    return state.tobytes() if hasattr(state, "tobytes") else state


def seeded(trial: int) -> random.Random:
    """Return a generator of Python for one trial."""
    return random.Random(trial)  # noqa: S311 - nothing here is secret


def _trials(bits: Any) -> int:
    return _TRIALS if type(bits).__name__ == "MT19937" else _UNSTEERABLE_TRIALS


def _steer(bits: Any, trial: int) -> None:
    """Give a bit generator of NumPy the state of a trial: a chosen one where it is a Mersenne Twister."""
    state = type(bits)(trial).state
    if type(bits).__name__ == "MT19937":
        words = _python_state(trial)[1]
        state["state"]["key"][:], state["state"]["pos"] = words[:_STATE_WORDS], 0
    bits.state = state


def _python_state(trial: int) -> tuple[int, tuple[int, ...], None]:
    """Return the state of a Mersenne Twister that gives one word many times, then random ones."""
    words = seeded(trial).getstate()[1][:_STATE_WORDS]
    if trial < len(_WORDS):
        words = (*[_untempered(_WORDS[trial])] * _FIXED_WORDS, *words[_FIXED_WORDS:])
    return 3, (*words, 0), None


def _untempered(word: int) -> int:
    """Return the word of the state that a Mersenne Twister (MT19937) turns into ``word`` when it puts it out."""
    word ^= word >> 18
    word ^= (word << 15) & 0xEFC60000
    found = word
    for _ in range(4):
        found = word ^ ((found << 7) & 0x9D2C5680)
    word = found
    for _ in range(2):
        found = word ^ (found >> 11)
    return found & 0xFFFFFFFF
