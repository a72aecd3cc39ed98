"""Scripts that take an agent and all its settings from the command line, such as `examples/train.py`."""

# Annotations are not postponed here: tyro reads them, and one is known at run time only.

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from acme_lite import agents, core, learning

_rules = tyro.constructors.ConstructorRegistry()

_AFTER_CTRL_C = 130


def run(
    function: Callable[[core.Builder, Any], Any],
    settings_class: type,
    *,
    description: str | None = None,
    args: Sequence[str] | None = None,
) -> None:
    """Calls a function with the builder of an agent and further settings, as the command line says.

    The first word names the agent, or one of its variants (`dqn:rainbow`); every field of its config and of the further
    settings is an option, with the line below it as its help.

    Args:
        function: what the script does.
        settings_class: a dataclass of what the script asks for beside the agent's config.
        description: what the script does, in words, for `--help`.
        args: the words of the command line; those of this process unless given.

    Raises:
        SystemExit: with code 2, where the words or their values are wrong; a sentence on stderr says how. With code 130
            after Ctrl-C.
    """
    commands = {
        name: _command(settings_class, agent, config)
        for agent in agents.NAMES
        for name, config in agents.named_configs(agent).items()
    }
    subcommands: list[Any] = [
        Annotated[Any, tyro.conf.subcommand(name, constructor=command)] for name, command in sorted(commands.items())
    ]
    any_agent = functools.reduce(operator.or_, subcommands)

    # tyro.extras.subcommand_cli_from_dict would say of a wrong value that it is in "__tyro-dummy-inner__.config".
    def parse(agent: Annotated[any_agent, tyro.conf.arg(name="")]) -> Any:  # type: ignore[valid-type]  # known at run time
        return agent

    builder, settings = tyro.cli(parse, description=description, args=args, registry=_rules)
    try:
        function(builder, settings)
    except KeyboardInterrupt:  # whatever was under way has said what it has done
        raise SystemExit(_AFTER_CTRL_C) from None


def _command(settings_class: type, agent: str, default: Any) -> Callable[..., Any]:
    """Returns what makes builder and settings out of the options of one agent, as tyro reads them off its arguments."""
    config_class = agents.config_class(agent)

    def command(
        settings: tyro.conf.OmitArgPrefixes[settings_class],  # type: ignore[valid-type]  # known at run time
        config: tyro.conf.OmitArgPrefixes[config_class] = default,  # type: ignore[valid-type]  # known at run time
    ) -> tuple[core.Builder, Any]:
        return agents.builder_class(agent)(config), settings

    command.__doc__ = config_class.__doc__
    return command


@_rules.primitive_rule
def _schedule_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Reads a schedule as INITIAL:FINAL:STEPS."""
    if info.type is not learning.LinearSchedule:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INITIAL:FINAL:STEPS",
        instance_from_str=lambda words: learning.LinearSchedule.parse(words[0]),
        is_instance=lambda value: isinstance(value, learning.LinearSchedule),
        str_from_instance=lambda schedule: [str(schedule)],
    )
