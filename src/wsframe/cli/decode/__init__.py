"""x."""
import click
@click.command
def decode() -> None:
    """X."""
