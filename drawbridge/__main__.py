"""Entry point of `drawbridge` and of `python -m drawbridge`."""

from drawbridge.commands.root import cli


def main() -> None:
    """Run the command and exit."""
    cli(prog_name="drawbridge")


if __name__ == "__main__":
    main()
