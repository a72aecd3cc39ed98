"""Scripts that take an agent and all its settings from the command line, such as `examples/train.py`."""

# Annotations are not postponed here: tyro reads them, and one is known at run time only.

from collections.abc import Callable, Sequence
from typing import Any

import tyro

from acme_lite import agents, core, learning

_rules = tyro.constructors.ConstructorRegistry()


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
    """
    commands = {
        name: _command(function, settings_class, agent, config)
        for agent in agents.NAMES
        for name, config in agents.named_configs(agent).items()
    }
    tyro.extras.subcommand_cli_from_dict(commands, description=description, args=args, registry=_rules)


def _command(
    function: Callable[[core.Builder, Any], Any], settings_class: type, agent: str, default: Any
) -> Callable[..., Any]:
    config_class = agents.config_class(agent)

    def command(
        settings: tyro.conf.OmitArgPrefixes[settings_class],  # type: ignore[valid-type]  # known at run time
        config: tyro.conf.OmitArgPrefixes[config_class] = default,  # type: ignore[valid-type]  # known at run time
    ) -> Any:
        return function(agents.builder_class(agent)(config), settings)

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
