"""The `deeprank` command."""

import sys

import typer

from deeprank.cli.data_commands import synthetic, triplets
from deeprank.cli.output import print_error
from deeprank.cli.registry_commands import models, promote, rollback, summary
from deeprank.cli.run_commands import run, schedule
from deeprank.cli.search_commands import distance, embed, evaluate, explain, search
from deeprank.cli.serve_command import serve
from deeprank.errors import DeepRankError
from deeprank.home import activate, require_in_place

COMMANDS = {
    "Train": (run, schedule, summary),
    "Search and compare": (search, distance, explain, evaluate),
    "Manage releases": (models, promote, rollback),
    "Serve": (serve,),
    "Prepare data": (synthetic, triplets, embed),
}

app = typer.Typer(
    help="Image similarity by deep ranking: train on folders of similar images, then search with the model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# `pipelines.schedule` parses the arguments of `deeprank schedule`, --help included.
FORWARD_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.callback()(require_in_place)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel, context_settings=FORWARD_ARGUMENTS if command is schedule else None)(command)


def main() -> None:
    """Run the command; an error that the user can correct is printed as one message, with exit code 1."""
    # Short options of the original Keras scripts: two letters behind one dash, which click does not parse.
    arguments = [{"-i1": "--image1", "-i2": "--image2"}.get(argument, argument) for argument in sys.argv[1:]]
    activate()
    try:
        app(args=arguments, prog_name="deeprank")
    except DeepRankError as error:
        print_error(error)
        sys.exit(1)
