"""Settings on the command line: one option each, made from their declarations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..catalog import CATALOG
from ..errors import ConfigurationError
from ..setting_types import API_KEY_VARIABLE
from ..settings import (
    OPTIONS,
    SETTINGS,
    default_of,
    description_of,
    metavar_of,
    read_setting,
    split_settings,
)

_VARIABLE_PREFIX = "BGE_RERANK_"
# groups of options that --help leaves out
_LOADING = "What is loaded, and where"
_SCORING = "How a call is scored"
ACCESS = "Who may ask, proxies and HTTPS"
LOG = "Log and traces"
LIMITS = "Limits of the server"
_MORE = (_LOADING, _SCORING, ACCESS, LOG, LIMITS)


class Command(TyperCommand):
    """A command whose ``--help`` shows what a first call needs, and ``--help-all`` the rest."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        shows_all = ctx.meta.get(_HELP_ALL, False)
        options: list[Any] = [each for each in self.params if each.param_type_name == "option"]
        more = [each for each in options if each.rich_help_panel in _MORE]
        for each in options:
            # the rule is told once: BGE_RERANK_ and the option's name
            each.show_envvar = shows_all
        for each in more:
            each.hidden = not shows_all
        try:
            super().format_help(ctx, formatter)
        finally:
            for each in more:
                each.hidden = False


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.meta[_HELP_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


_HELP_ALL = f"{__name__}.help_all"
_HELP_ALL_OPTION = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all",
            callback=_show_all,
            is_eager=True,
            help="Show the help with all settings.",
        ),
    ],
)


def model_names(incomplete: str) -> list[str]:
    """The names of the catalog's models, for a shell's completion."""
    return [entry.model for entry in CATALOG if entry.model.startswith(incomplete)]


Model = Annotated[str, typer.Option(help=description_of("model"), autocompletion=model_names)]


def with_settings(
    *,
    but: tuple[str, ...] = (),
    variables: bool = False,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    more: Sequence[inspect.Parameter] = (),
) -> Callable[[Any], Any]:
    """Give a command an option for every setting but the model.

    The command's ``**settings`` take the values of those that were given or have a default of the
    command, as settings of an engine.

    :param but: settings that the command does not have, or has as options of its own.
    :param variables: read each option, the command's own too, from ``BGE_RERANK_…`` where the
        command line leaves it out; several values have spaces between them there.
    :param defaults: the command's own defaults, where they differ from the settings'.
    :param more: further options; ``**settings`` take their values, too.
    """
    names = [name for name in SETTINGS if name not in ("model", *but)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        given = signature.parameters.values()
        own = [*(each for each in given if each.kind is not each.VAR_KEYWORD), *more]
        if variables:
            for each in own:
                _read_variable(each)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            given.pop("help_all", None)  # its callback has shown the help
            texts = {name: given.pop(name) for name in names}
            settings = {n: read_setting(n, t) for n, t in texts.items() if t is not None}
            command(**given, **{**defaults, **settings})

        options = [
            _option(name, defaults.get(name, default_of(name)), variables=variables)
            for name in names
        ]
        run.__signature__ = signature.replace(parameters=[*own, *options, _HELP_ALL_OPTION])  # type: ignore[attr-defined]
        run.__annotations__ = {
            each.name: each.annotation for each in (*own, *options, _HELP_ALL_OPTION)
        }
        return run

    return decorate


def model_settings(text: str) -> tuple[str, dict[str, Any]]:
    """Read a model's name and the settings after it.

    :param text: ``model,name=value,…``; a setting that takes several values may come repeatedly.
    :raises ConfigurationError: for a name that is not a setting, or an invalid value.
    """
    model, *given = text.split(",")
    values: dict[str, list[str]] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or name not in SETTINGS or name == "model":
            raise ConfigurationError(
                f"settings after a model must be name=value with one of {', '.join(SETTINGS[1:])}; "
                f"got {setting!r}"
            )
        values.setdefault(name, []).append(value)
    settings = {name: read_setting(name, ",".join(several)) for name, several in values.items()}
    # an error is raised now, not after the models before it have run
    split_settings(model, settings)
    return model, settings


def variable_of(name: str) -> str:
    """The environment variable of an option."""
    return f"{_VARIABLE_PREFIX}{name.upper()}"


def _read_variable(parameter: inspect.Parameter) -> None:
    (option,) = parameter.annotation.__metadata__
    variable = variable_of(parameter.name)
    # a key's is read where the key is: set and empty is an error there, and unset for an option
    if variable != API_KEY_VARIABLE:
        option.envvar = variable


def _option(name: str, default: Any, *, variables: bool) -> inspect.Parameter:
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=description_of(name),
        show_default="none" if default is None else str(default).lower(),
        metavar=metavar_of(name),
        envvar=variable_of(name) if variables else None,
        rich_help_panel=_SCORING if name in OPTIONS else _LOADING,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
