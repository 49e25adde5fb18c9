"""What the history window of a long conversation costs, and what prompt caches make of it.

    .venv/bin/python bench/window/run.py [--quick] [--llama]

Runs one conversation of 200 turns through the orchestrator, with models that follow a script, three
times: with a window that slides by one turn, as it used to; with the window in blocks; and with
blocks and summaries. Reports the share of prompt tokens that a request has in common with the
request before, and what the prompts cost at list prices. With --llama the same prompts, of shorter
messages, go to a real llama.cpp server, which reports what it had in its cache. Prints a table, and
the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from seawall import (
    AgentSettings,
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    SessionSettings,
    Settings,
    TurnFailed,
    new_request,
)
from seawall.agents.window import Window, WindowBound, moved, turn_tokens
from seawall.models import Finish
from seawall.models.local import open_local
from seawall.settings import ModelSettings
from seawall.turn import TurnRecord, Usage

TURNS = 200
LLAMA_TURNS = 50  # of short messages; the last 25 prompts are sent to the server
HISTORY_TURNS, HISTORY_TOKENS = 20, 6_000
ANN = Principal("shop", "ann")
INSTRUCTIONS = "You look after the customers of a shop for garden furniture. " * 20
WORDS = tuple(
    "the order of a garden chair and its blue cover was sent on Monday to Oslo by post".split()  # noqa: SIM905 - to be read
)
MODELS = ("claude-sonnet-5-5", "gpt-6-sol")
SUMMARY_MODELS = {"claude-sonnet-5-5": "claude-haiku-5-5", "gpt-6-sol": "gpt-6-luna"}
PRICES = Path(ROOT, "src/seawall/plan/inputs/model_prices.toml")
CHARACTERS_A_TOKEN = 4


class Run(msgspec.Struct):
    """The requests of one conversation, and those for its summaries."""

    requests: list[ModelRequest]
    summaries: list[ModelRequest]


def text(rng: random.Random, low: int, high: int) -> str:
    """So many words, at random."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def slide(window: Window, turns: Sequence[TurnRecord], bound: WindowBound) -> Window:
    """The window that slides: the newest turns that fit."""
    start, tokens = (turns[-1].number + 1 if turns else 1), 0
    for turn in reversed(turns[-bound.turns :]):
        tokens += turn_tokens(turn)
        if tokens > bound.tokens:
            break
        start = turn.number
    return msgspec.structs.replace(window, start=start)


async def converse(turns: int, size: float, *, compaction: bool) -> Run:
    """A conversation of so many turns; the same messages each time.

    Args:
        turns: How many.
        size: Of messages; 1 for 25 to 75 words of the user and 50 to 150 of the assistant.
        compaction: Whether what leaves the window is summarised.
    """
    rng = random.Random(7)
    answers = [text(rng, int(50 * size), int(150 * size)) for _ in range(turns)]
    asked = [text(rng, int(25 * size), int(75 * size)) for _ in range(turns)]
    said = iter(answers)
    big = ScriptedModel(lambda _: next(said))
    cheap = ScriptedModel(lambda _: text(rng, 250, 350))  # about 400 tokens
    with tempfile.TemporaryDirectory() as folder:
        app = Orchestrator(
            Settings(
                sessions=SessionSettings(
                    path=str(Path(folder, "sessions.db")),
                    history_turns=HISTORY_TURNS,
                    history_tokens=HISTORY_TOKENS,
                )
            )
        )
        app.model("big", big)
        app.model("cheap", cheap)
        app.agent(
            "only",
            AgentSettings(
                instructions=INSTRUCTIONS,
                model="big",
                compaction="summary" if compaction else "none",
                summary_model="cheap",
            ),
        )
        async with app:
            session: str | None = None
            for each in asked:
                request = new_request(each, session=session)
                session = request.session
                async for event in app.run(request, principal=ANN):
                    if isinstance(event, TurnFailed):
                        raise RuntimeError(str(event.problem))  # noqa: TRY004 - of a turn
    return Run(big.requests, cheap.requests)


def characters(request: ModelRequest) -> str:
    """The prompt of a request in one text."""
    return request.prompt.instructions + msgspec.json.encode(request.messages).decode()


def tokens_in_common(before: str, after: str) -> int:
    """Tokens of the identical beginning of two prompts; their last characters close lists."""
    pairs = enumerate(zip(before[:-2], after, strict=False))
    same = next((index for index, (a, b) in pairs if a != b), len(before) - 2)
    return same // CHARACTERS_A_TOKEN


def listed_prices() -> dict[str, dict[str, float]]:
    """List prices by model, for a million tokens."""
    return tomllib.loads(PRICES.read_text(encoding="utf-8"))


def price(
    run: Run, turns: int, model: str, prices: dict[str, dict[str, float]], *, writes: bool
) -> float:
    """What the prompts of the second half cost, summaries with their output included, in USD.

    A request reads from the cache what it has in common with the request before, where that is as
    long as the provider asks for; the rest is written to the cache, or, where the window slides,
    costs the input's price, as writing it would be in vain. For summaries nothing is cached.

    Args:
        run: The conversation.
        turns: How many it has.
        model: Its name in the price file.
        prices: The price file.
        writes: Whether what is new is written to the cache.
    """
    listed = prices[model]
    total = 0.0
    prompts = [characters(each) for each in run.requests]
    for before, after in list(pairwise(prompts))[turns // 2 :]:
        all_tokens, shared = len(after) // CHARACTERS_A_TOKEN, tokens_in_common(before, after)
        shared = shared if shared >= listed.get("cache_least_tokens", 1_024) else 0
        written = listed["cache_write" if writes else "input"]
        total += shared * listed["cached_input"] + (all_tokens - shared) * written
    cheap = prices[SUMMARY_MODELS[model]]
    for each in run.summaries[len(run.summaries) // 2 :]:
        total += len(characters(each)) / CHARACTERS_A_TOKEN * cheap["input"]
        total += 400 * cheap["output"]
    return total / 1e6


def share_in_prefix(run: Run, first: int) -> tuple[float, int]:
    """Share of the prompt tokens that the request before had too; and tokens of a prompt."""
    prompts = [characters(each) for each in run.requests][first:]
    shared = sum(tokens_in_common(a, b) for a, b in pairwise(prompts))
    total = sum(len(each) // CHARACTERS_A_TOKEN for each in prompts[1:])
    return shared / total, total // len(prompts[1:])


async def cached_share(run: Run, first: int) -> tuple[float, int]:
    """Share of the prompt tokens that a real llama.cpp server had in its cache; and all tokens."""
    model = open_local(
        "small", ModelSettings(kind="local", context_tokens=8_192, generations=1, threads=2)
    )
    used = Usage()
    try:
        await model.warm()
        for number, request in enumerate(run.requests[first:]):
            wanted = msgspec.structs.replace(request, max_tokens=1, temperature=0.0, meter=None)
            deadline = asyncio.get_running_loop().time() + 300
            async with aclosing(model.stream(wanted, deadline=deadline)) as events:
                async for event in events:
                    if isinstance(event, Finish) and number:  # the first fills the cache
                        used += event.usage
    finally:
        await model.close()
    return used.cached_prompt_tokens / used.prompt_tokens, used.prompt_tokens


async def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="80 turns instead of 200")
    parser.add_argument("--llama", action="store_true", help="also ask a real llama.cpp server")
    arguments = parser.parse_args()
    turns = 80 if arguments.quick else TURNS
    prices = listed_prices()
    ways: dict[str, tuple[Callable[..., Window], bool]] = {
        "slides": (slide, False),
        "blocks": (moved, False),
        "blocks, summaries": (moved, True),
    }
    found: dict[str, dict[str, float]] = {}
    for name, (move, compaction) in ways.items():
        with patch("seawall.pipeline.answering.moved", move):
            run = await converse(turns, 1.0, compaction=compaction)
            short = await converse(LLAMA_TURNS, 0.12, compaction=compaction)
        share, tokens = share_in_prefix(run, turns // 2)
        found[name] = {"prefix_share": round(share, 3), "prompt_tokens": tokens}
        for model in MODELS:
            found[name][f"usd_{model}"] = round(
                price(run, turns, model, prices, writes=move is moved), 4
            )
        if arguments.llama:
            cached, _ = await cached_share(short, LLAMA_TURNS - 25)
            found[name]["llama_cached_share"] = round(cached, 3)
            same, _ = share_in_prefix(short, LLAMA_TURNS - 25)
            found[name]["llama_prefix_share"] = round(same, 3)
        sys.stdout.write(f"{name}: {found[name]}\n")
    sys.stdout.write(json.dumps({"turns": turns, "ways": found}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
