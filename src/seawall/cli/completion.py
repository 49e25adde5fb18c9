"""`seawall completion`: completion scripts for bash, zsh and fish, generated from the parsers."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from seawall.cli.arguments import Commands, CommandSyntax, OptionSyntax, Parser

__all__ = ["SCRIPTS", "add_parser"]

_DESCRIPTION = """\
Print a shell's completion script. To try it in the current shell:

  source <(seawall completion bash)
  source <(seawall completion zsh)
  seawall completion fish | source

To keep it, write it where the shell looks for completions:

  bash  ~/.local/share/bash-completion/completions/seawall
  zsh   a file _seawall in a folder of $fpath
  fish  ~/.config/fish/completions/seawall.fish
"""


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "completion",
        help="print a completion script for your shell",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=list(SCRIPTS), help="shell that the script is for")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from seawall.cli.main import build_parser  # noqa: PLC0415 - it imports this module

    sys.stdout.write(SCRIPTS[arguments.shell](build_parser([]).syntax()))
    return 0


def _bash(commands: Sequence[CommandSyntax]) -> str:
    values, words = [], []
    for command in commands:
        for option in command.options:
            pattern = "|".join(_case(command, name) for name in option.names)
            if option.choices:
                values.append(f'        {pattern}) words="{" ".join(option.choices)}" ;;')
            elif option.takes_value:  # nothing is offered: bash completes file names
                values.append(f"        {pattern}) return ;;")
        options = " ".join(name for each in command.options for name in each.names)
        others = " ".join((*command.commands, *command.choices))
        words.append(f'                "{command.path}") options="{options}" words="{others}" ;;')
    return "\n".join(
        (
            "# bash completion for seawall, written by `seawall completion bash`.",
            "_seawall() {",
            "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
            '    local command="" options="" words="" index',
            '    if [[ $current == "=" ]]; then current=""; fi',
            '    if [[ $previous == "=" ]]; then previous=${COMP_WORDS[COMP_CWORD-2]}; fi',
            "    for ((index = 1; index < COMP_CWORD; index++)); do",
            '        case "$command/${COMP_WORDS[index]}" in',
            f"            {_paths(commands)}) command+=/${{COMP_WORDS[index]}} ;;",
            "        esac",
            "    done",
            '    case "$command:$previous" in',
            *values,
            "        *)",
            '            case "$command" in',
            *words,
            "            esac",
            "            if [[ $current == -* ]]; then words=$options; fi ;;",
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o default -F _seawall seawall",
            "",
        )
    )


def _zsh(commands: Sequence[CommandSyntax]) -> str:
    values, words = [], []
    for command in commands:
        for option in command.options:
            if option.takes_value:
                pattern = "|".join(_case(command, name) for name in option.names)
                offer = "_files" if option.is_path else "_message value"
                if option.choices:
                    offer = f"compadd -- {' '.join(option.choices)}"
                values.append(f"        ({pattern}) {offer}; return ;;")
        described = [f"{name}:{_escaped(text)}" for name, text in command.commands.items()]
        described += command.choices
        options = [
            f"{name}:{_escaped(each.help)}" for each in command.options for name in each.names
        ]
        words.append(f"        ('{command.path}')")
        words.append(f"            words_=({_quoted(described)})")
        words.append(f"            options=({_quoted(options)}) ;;")
    return "\n".join(
        (
            "#compdef seawall",
            "# zsh completion for seawall, written by `seawall completion zsh`.",
            "_seawall() {",
            '    local command="" previous=$words[CURRENT-1] word',
            "    local -a options words_",
            "    for word in $words[2,CURRENT-1]; do",
            '        case "$command/$word" in',
            f"            ({_paths(commands)}) command+=/$word ;;",
            "        esac",
            "    done",
            '    case "$command:$previous" in',
            *values,
            "    esac",
            '    case "$command" in',
            *words,
            "    esac",
            "    (( $#words_ )) && _describe -t commands command words_",
            "    _describe -o -t options option options",
            "    (( $#words_ )) || _files",
            "}",
            'if [[ $funcstack[1] == _seawall ]]; then _seawall "$@"',
            "else compdef _seawall seawall; fi",
            "",
        )
    )


def _fish(commands: Sequence[CommandSyntax]) -> str:
    lines = [
        "# fish completion for seawall, written by `seawall completion fish`.",
        "function __seawall_at --argument-names wanted",
        '    set -l command ""',
        "    for word in (commandline -opc)[2..-1]",
        '        switch "$command/$word"',
        f"            case {_paths(commands).replace('|', ' ')}",
        '                set command "$command/$word"',
        "        end",
        "    end",
        '    test "$command" = "$wanted"',
        "end",
    ]
    for command in commands:
        at = f"complete -c seawall -n '__seawall_at \"{command.path}\"'"
        if command.commands or command.choices:
            lines.append(f"{at} -f")
        for name, text in command.commands.items():
            lines.append(f"{at} -a {name} -d {_fish_quoted(text)}")
        lines += [f"{at} -a {choice}" for choice in command.choices]
        lines += [f"{at} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: OptionSyntax) -> str:
    words = [f"-l {name[2:]}" if name[:2] == "--" else f"-s {name[1:]}" for name in option.names]
    if option.choices:
        words.append(f"-x -a {_fish_quoted(' '.join(option.choices))}")
    elif option.takes_value:
        words.append("-r -F" if option.is_path else "-x")
    return f"{' '.join(words)} -d {_fish_quoted(option.help)}"


def _paths(commands: Iterable[CommandSyntax]) -> str:
    return "|".join(each.path for each in commands if each.path)


def _case(command: CommandSyntax, name: str) -> str:
    return f"{command.path}:{name}"


def _escaped(text: str) -> str:
    """A description for zsh's _describe, which splits at colons."""
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _quoted(words: Iterable[str]) -> str:
    return " ".join("'" + each.replace("'", "'\\''") + "'" for each in words)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""The writer of each shell's script."""
