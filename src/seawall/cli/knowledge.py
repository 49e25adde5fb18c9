"""`seawall knowledge`: build and search the indexes of folders of documents."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import (
    Commands,
    Parser,
    add_config,
    add_group,
    add_json,
    integer,
    plural,
    requires_extra,
)
from seawall.cli.terminal import ProgressLine, color, progress_bar
from seawall.errors import ConfigError, did_you_mean
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.knowledge.build import Built
    from seawall.knowledge.search import Found
    from seawall.knowledge.settings import KnowledgeSettings

__all__ = ["add_parser"]

_PREVIEW_CHARACTERS = 300


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "knowledge",
        "build and search the indexes of folders of documents",
        "A folder of Markdown, HTML, PDF and text files, which a table [knowledge.NAME] names, is "
        "searched by agents with the tool search_NAME. Its index is a file, which is built ahead.",
    )
    build = commands.add_parser(
        "build",
        help="build the indexes, or those that are named",
        description="Build the index of each folder, or of those that are named. Documents that "
        "have not changed since the last build are not read again. The index takes the place of "
        "the one before as a whole. The same documents and settings make the same file. Needs the "
        "extra knowledge.",
    )
    build.add_argument(
        "names", nargs="*", metavar="NAME", help="NAME of [knowledge.NAME] (default: all)"
    )
    add_config(build, "the tables [knowledge.NAME]")
    build.add_argument("--full", action="store_true", help="read all documents again")
    build.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out documents that cannot be read, with a warning",
    )
    add_json(build, "print a JSON object for each index")
    build.set_defaults(run=_build)
    search = commands.add_parser(
        "search",
        help="search an index as an agent does",
        description="Search an index as the tool search_NAME does, and print the passages that "
        "were found. The exit status is 1 if there are none.",
    )
    search.add_argument("name", metavar="NAME", help="NAME of [knowledge.NAME]")
    search.add_argument("question", metavar="QUESTION", help="what is looked for")
    add_config(search, "the tables [knowledge.NAME]")
    search.add_argument(
        "--passages",
        type=integer(1, 20),
        metavar="N",
        help="how many (default: knowledge.passages)",
    )
    add_json(search, "print what a model would read, as a JSON object")
    search.set_defaults(run=_search)


def _build(arguments: argparse.Namespace) -> int:
    with requires_extra("knowledge build", "knowledge"):
        import markdown_it  # noqa: F401, PLC0415 - used by the process that reads
        import pypdfium2  # noqa: F401, PLC0415
        import selectolax  # noqa: F401, PLC0415

    from seawall.cli.stored import print_json  # noqa: PLC0415 - only what this command needs
    from seawall.intents.open import open_embedder  # noqa: PLC0415
    from seawall.knowledge.build import build_index  # noqa: PLC0415

    tables = _tables(arguments.config)
    for name in arguments.names or tables:
        settings = _table(tables, name)
        line = ProgressLine(only_terminal=arguments.json, at_once=False)

        def show(done: int, total: int, path: str, line: ProgressLine = line) -> None:
            line.show(f"{progress_bar(done, total)} {done} of {total} {printable(path)[:60]}")

        try:
            built = build_index(
                name,
                settings,
                embedder=open_embedder(settings.embedding_model) if settings.embeddings else None,
                anew=arguments.full,
                skip_unreadable=arguments.skip_unreadable,
                progress=show,
            )
        finally:
            line.end()
        if arguments.json:
            print_json({"name": name, **_figures(built)})
        else:
            _print_built(name, built)
    return 0


def _figures(built: "Built") -> dict[str, object]:
    return {each: getattr(built, each) for each in built.__struct_fields__}


def _print_built(name: str, built: "Built") -> None:
    changes = f"{built.read:,} read, {built.removed:,} removed since the last build"
    sys.stdout.write(
        printable(
            f"knowledge.{name}: {plural(built.documents, 'document')} ({changes}), "
            f"{plural(built.passages, 'passage')}, {built.bytes / 1e6:.1f} MB in {built.index}\n",
            keep="\n",
        )
    )
    if built.advice:
        print(color(f"knowledge.{name}: {built.advice}", "yellow", sys.stderr), file=sys.stderr)
    for path, fault in built.faults.items():
        warning = color("left out:", "yellow", sys.stderr)
        sys.stderr.write(f"{warning} {printable(f'{path} {fault}')}\n")


def _search(arguments: argparse.Namespace) -> int:
    import sqlite3  # noqa: PLC0415 - only what this command needs

    from seawall.cli.stored import print_json  # noqa: PLC0415
    from seawall.knowledge.search import SearchTooSlow  # noqa: PLC0415
    from seawall.knowledge.status import check_index  # noqa: PLC0415
    from seawall.knowledge.tool import answer, open_search  # noqa: PLC0415

    settings = _table(_tables(arguments.config), arguments.name)
    state = check_index(arguments.name, settings)
    if state.fault:
        raise ConfigError(f"knowledge.{arguments.name}: {state.summary}")
    if state.stale:
        print(color(printable(state.summary), "yellow", sys.stderr), file=sys.stderr)
    search = open_search(settings)
    try:
        search.open(vectors=True)
        found = search.search(arguments.question, arguments.passages or settings.passages)
    except (SearchTooSlow, sqlite3.Error, OSError) as error:
        raise ConfigError(f"knowledge.{arguments.name}: {error}") from None
    finally:
        search.close()
    if arguments.json:
        print_json(answer(found, settings).content)
    else:
        _print_found(found, settings)
    return 0 if found else 1


def _print_found(found: "list[Found]", settings: "KnowledgeSettings") -> None:
    from seawall.knowledge.tool import source_of  # noqa: PLC0415 - only what this command needs
    from seawall.turn import cited_title  # noqa: PLC0415

    for number, each in enumerate(found, 1):
        source = source_of(each, settings)
        place = source.url or source.path
        text = " ".join(each.text.split())
        shown = text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]} ..."
        title = color(printable(cited_title(source)), "bold")
        sys.stdout.write(f"{number}. {title}\n   {printable(place)}\n   {printable(shown)}\n")
    if not found:
        sys.stdout.write("No passage has any of these words.\n")


def _tables(config: Path) -> "dict[str, KnowledgeSettings]":
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs

    tables = load_settings(config).knowledge
    if not tables:
        raise ConfigError(f"{config}: has no table [knowledge.NAME]")
    return tables


def _table(tables: "dict[str, KnowledgeSettings]", name: str) -> "KnowledgeSettings":
    if name not in tables:
        meant, known = did_you_mean(name, tables), ", ".join(sorted(tables))
        raise ConfigError(f"there is no table [knowledge.{name}]{meant}; known: {known}")
    return tables[name]
