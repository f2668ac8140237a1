"""Invoke's program, which explains mistakes in a command line in the words of this suite.

This module imports nothing heavy, so that `invoke --list` stays instant.
"""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterable

from invoke import main
from invoke.exceptions import AmbiguousEnvVar, ParseError, UncastableEnvVar
from invoke.parser.context import ParserContext
from invoke.program import Program as InvokeProgram

from deploy.cli import output
from deploy.errors import SettingsInvalid
from deploy.nearest import ask, suggest

# An error of Invoke's parser has what is wrong in its text alone.
_UNKNOWN = re.compile(r"No idea what (.*) is!", re.DOTALL)
_WITHOUT_VALUE = re.compile(r"Flag <Argument: ([\w-]+).*> needed value")
_FORMATS = ("flat", "nested", "json")
# How many more objects there are before Python looks for garbage among them.
_NEW_OBJECTS = 50_000


class Program(InvokeProgram):
    """The program that `invoke` runs, with this suite's errors and exit codes."""

    def parse_tasks(self) -> None:
        """Read the tasks and their options, and refuse what would be ignored."""
        with output.exit_codes():
            try:
                super().parse_tasks()
            except ParseError as error:
                raise self._explain(error) from error
            except ValueError as error:
                raise SettingsInvalid(
                    f"an option of Invoke takes a number: {error}",
                    on="the command line",
                    next="`invoke --help` shows its options",
                ) from error
            for context in self.tasks:
                self._check_values(context)
            # To complete a word, a shell gives the line that was typed after `--`.
            if self.core.remainder and not self.args.complete.value:
                raise SettingsInvalid(
                    f"nothing may follow `--`: {self.core.remainder}",
                    on="the command line",
                    next="write options after the task, without `--`, which only Nox needs",
                )

    def parse_cleanup(self) -> None:
        """Print the help or the list that was asked for."""
        with output.exit_codes():
            self._check_questions()
            super().parse_cleanup()

    def update_config(self, merge: bool = True) -> None:  # noqa: FBT001, FBT002 - Invoke's signature
        """Read Invoke's own configuration."""
        with output.exit_codes():
            try:
                super().update_config(merge)
            except Exception as error:  # It raises those of each format, and its own.
                raise _refuse_configuration(error) from error

    def execute(self) -> None:
        """Run the tasks."""
        # They import hundreds of modules, whose objects stay. At Python's own threshold, to look
        # for garbage among them takes a tenth of a release that has nothing to do.
        gc.set_threshold(_NEW_OBJECTS)
        with output.exit_codes():
            try:
                super().execute()
            except (AmbiguousEnvVar, UncastableEnvVar) as error:
                raise _refuse_configuration(error) from error

    def _explain(self, error: ParseError) -> SettingsInvalid:
        """Return the error for people in place of one of Invoke's parser."""
        context = error.context
        if context is not None and context.name:
            self._check_values(context)
        unknown = _UNKNOWN.fullmatch(str(error))
        if unknown:
            return self._refuse_word(ast.literal_eval(unknown[1]), context)
        without = _WITHOUT_VALUE.match(str(error))
        if without:
            return _refuse_empty(f"--{without[1]}")
        if context is not None and context.missing_positional_args:
            missing = context.missing_positional_args
            options = " and ".join(f"--{argument.names[0]}" for argument in missing)
            return SettingsInvalid(
                f"`{context.name}` needs {options}",
                on="the command line",
                next=f"`invoke --help {context.name}` explains its options",
            )
        return SettingsInvalid(
            f"the command line cannot be read: {error}",
            on="the command line",
            next="`invoke --list` shows the tasks, `invoke --help TASK` the options of one",
        )

    def _refuse_word(self, word: str, context: ParserContext | None) -> SettingsInvalid:
        """Return the error of a word that is neither a task nor an option of the task before it."""
        if context is None or not context.name:
            if word.startswith("-"):
                return _refuse_option(word, "Invoke", self.initial_context.flags, "--help")
            return self._refuse_task(word)
        if word.startswith("-"):
            flags = context.flags
            return _refuse_option(word, f"`{context.name}`", flags, f"--help {context.name}")
        return SettingsInvalid(
            f"{word!r} is neither a task nor an option of `{context.name}`",
            on="the command line",
            next=ask(word, self.parser.contexts)
            or f"`invoke --help {context.name}` explains its options; each is given once",
        )

    def _refuse_task(self, word: str) -> SettingsInvalid:
        return SettingsInvalid(
            f"there is no task {word!r}",
            on="the command line",
            next=f"`invoke --list` shows all tasks; {suggest(word, self.parser.contexts)}",
        )

    def _check_values(self, context: ParserContext) -> None:
        """Raise if a task was given an empty value, or an option that it does not have."""
        for argument in context.args.values():
            if argument.raw_value == "":
                raise _refuse_empty(f"--{argument.names[0]}")
            # Invoke takes an unknown option for the value of one that has none yet.
            if argument.positional and str(argument.raw_value).startswith("-"):
                raise self._refuse_word(str(argument.raw_value), context)

    def _check_questions(self) -> None:
        """Raise if help or a list is asked for of what does not exist."""
        task = self.args.help.value
        if isinstance(task, str) and task not in self.parser.contexts:
            raise self._refuse_task(task)
        group = self.args.list.value
        groups = list(self.collection.collections)
        if isinstance(group, str) and group not in groups:
            raise SettingsInvalid(
                f"there is no group of tasks {group!r}",
                on="--list",
                next=suggest(group, groups),
            )
        form = self.args["list-format"].value
        if form not in _FORMATS:
            raise SettingsInvalid(
                f"there is no format {form!r} of the list",
                on="--list-format",
                next=suggest(form, _FORMATS),
            )


def take_over() -> None:
    """Let the program that Invoke runs be this one.

    Invoke's parser cannot be given another way to report errors, and each way to start Invoke
    (`invoke`, `inv`, `python -m invoke`) runs this object of it.
    """
    main.program.__class__ = Program


def _refuse_option(word: str, whose: str, known: Iterable[str], help_of: str) -> SettingsInvalid:
    options = [name for name in known if name.startswith("--")]
    return SettingsInvalid(
        f"{whose} has no option {word!r}",
        on="the command line",
        next=f"`invoke {help_of}` explains its options; {suggest(word, options)}",
    )


def _refuse_empty(option: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{option} has no value",
        on="the command line",
        next="give one, or leave the option out; a variable in its place may be empty",
    )


def _refuse_configuration(error: Exception) -> SettingsInvalid:
    return SettingsInvalid(
        f"Invoke's own configuration cannot be used: {error}",
        on="INVOKE_ variables and configuration files of Invoke",
        next="correct or remove them; this suite needs none",
    )
